"""What is printed of a model, an optimizer or a history: a title, fields and a table."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

WIDTH, ROWS, LINES = 100, 24, 4  # of a line, of a table, of a field


def summary(
    title: str, fields: Mapping[str, object], table: Sequence[Sequence[object]] = ()
) -> str:
    """Returns a text of at most a screen.

    Args:
        title: its first line.
        fields: values by name, a line or some each; None is left out.
        table: the rows of a table, the head first; of many the middle ones are left out.

    Examples:
        >>> from newtriton.runtime.summary import summary
        >>> print(summary("Thing", {"size": 3}, [("layer", "count"), ("0", 12)]))
        Thing
          size: 3
          layer  count
          0      12
    """
    lines = [title]
    for name, value in ((n, v) for n, v in fields.items() if v is not None):
        lines += textwrap.wrap(
            f"{name}: {value}", WIDTH, initial_indent="  ", subsequent_indent="    ",
            max_lines=LINES, placeholder=" …",
        )  # fmt: skip
    return "\n".join([*lines, *_columns([[str(cell) for cell in row] for row in table])])


def _columns(rows: list[list[str]]) -> list[str]:
    """Returns aligned lines of a table."""
    if not rows:
        return []
    left, half = len(rows) - ROWS, ROWS // 2
    if left > 0:
        rows = [*rows[:half], [f"… {left} more"], *rows[-half:]]
    full = [row for row in rows if len(row) > 1]
    widths = [max(map(len, column)) for column in zip(*full, strict=True)]
    cells = [zip(row, widths, strict=False) for row in rows]
    return ["  " + "  ".join(f"{cell:<{w}}" for cell, w in row).rstrip() for row in cells]
