"""Tables as text."""

from __future__ import annotations

from collections.abc import Sequence


def table(rows: Sequence[Sequence[str]]) -> str:
    """Returns rows of cells as lines of text, the first column flush left, the others right.

    Examples:
        >>> print(table([["layer", "error"], ["0", "12"]]))
        layer  error
        0         12
    """
    first, *others = zip(*rows, strict=True)
    columns = [[cell.ljust(_width(first)) for cell in first]]
    columns += [[cell.rjust(_width(column)) for cell in column] for column in others]
    return "\n".join("  ".join(line) for line in zip(*columns, strict=True))


def _width(column: Sequence[str]) -> int:
    """Returns the length of a column's longest cell."""
    return max(map(len, column))
