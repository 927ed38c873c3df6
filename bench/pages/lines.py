"""Lines of tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    r"""Yields the lines of a table.

    Examples:
        >>> print("\n".join(table(["", "ms"], [["gradient", "3.5"]])))
        | | ms |
        |---|---|
        | gradient | 3.5 |
    """
    for line in (head, ["---"] * len(head), *rows):
        space = "" if line[0] == "---" else " "
        cells = (f"{space}{cell}{space}" if cell else " " for cell in line)
        yield f"|{'|'.join(cells)}|"


def ms(value: float) -> str:
    """Returns milliseconds in three digits.

    Examples:
        >>> ms(0.4312), ms(3.53), ms(296.17), ms(1298.1)
        ('0.43 ms', '3.5 ms', '296 ms', '1,298 ms')
    """
    return f"{value:,.{0 if value >= 100 else 1 if value >= 1 else 2}f} ms"


def times(theirs: float, ours: float) -> str:
    """Returns how many times as fast ours is, in bold where theirs is the faster one.

    Examples:
        >>> times(534.14, 296.17), times(161.6, 167.15)
        ('1.80×', '**0.97×**')
    """
    ratio = f"{theirs / ours:.2f}×"
    return f"**{ratio}**" if theirs < ours else ratio
