"""The space of a pass: which programs there are, and what stands along the axes of their tiles.

A wide value is (*lead, rows, columns). A program owns some rows and goes through all columns, tile
by tile, or owns columns and goes through all rows; axes before these, copies among them, belong to
programs. A value of fewer axes is the same for all that it does not have.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

from ..graph.ir import Dim, Node, Shape
from ..lowering.indexing import At, extent, split
from ..lowering.printing import triton
from ..lowering.tile import COLUMN, ROW, ZERO, Form, Index, Mask, position


class Side(Enum):
    """What a program owns."""

    ROWS = "rows"
    COLUMNS = "columns"


@dataclass(frozen=True)
class Tile:
    """What a program holds at once.

    Attributes:
        own: the rows or columns that it owns.
        other: the columns or rows that it takes in a turn of its loops.
        warps: the number of its warps.
        stages: the stages of its loops.
        lanes: whether sums are kept for each element of a tile, and added up behind the loop.
    """

    own: int
    other: int
    warps: int = 4
    stages: int = 2
    lanes: bool = False


@dataclass(frozen=True)
class Space:
    """The space of a pass.

    Attributes:
        side: what a program owns.
        lead: the sizes of the axes before rows and columns.
        rows: the number of rows.
        columns: the number of columns.
    """

    side: Side
    lead: Shape
    rows: Dim
    columns: Dim

    @property
    def own(self) -> Dim:
        """The size of the axis that programs share among themselves."""
        return self.rows if self.side is Side.ROWS else self.columns

    @property
    def other(self) -> Dim:
        """The size of the axis that every program goes through."""
        return self.columns if self.side is Side.ROWS else self.rows

    @cached_property
    def before(self) -> At:
        """The coordinates of the axes before rows and columns."""
        named = (Index.named(f"a{axis}") for axis in range(len(self.lead)))
        return tuple(ZERO if d == 1 else n for d, n in zip(self.lead, named, strict=True))

    @cached_property
    def coordinates(self) -> At:
        """The coordinates of an element; on a tile, what a program owns stands along its rows."""
        last = (ROW, COLUMN) if self.side is Side.ROWS else (COLUMN, ROW)
        return (*self.before, *last)

    def at(self, axes: int) -> At:
        """Returns the index of an element of a wide value of so many axes."""
        return self.coordinates[len(self.coordinates) - axes :]

    def lead_of(self, axes: int) -> At:
        """Returns the index along so many axes before rows and columns."""
        return self.before[len(self.before) - axes :]

    def first_of_copies(self, axes: int) -> Mask | None:
        """Returns whether a program is the one to write what has so few axes before its rows."""
        found: Mask | None = None
        for index in self.before[: len(self.before) - axes]:
            if index is not ZERO:
                found = Mask(Form.EQUAL, (index, ZERO)) & found
        return found

    def definitions(self, tile: Tile) -> Iterable[str]:
        """Yields the statements that define the coordinates of a program."""
        tiles = (extent([self.own]) + (tile.own - 1)) // position(tile.own)
        yield f"pid = tl.program_id(0) % ({triton(tiles)})"
        yield f"slab = tl.program_id(0) // ({triton(tiles)})"
        for index, definition in zip(
            self.before, split(self.lead, Index.named("slab")), strict=True
        ):
            if index is not ZERO:
                yield f"{index.detail} = {triton(definition)}"


def space_of(side: Side, shape: Shape, nodes: Iterable[Node], leads: Iterable[Shape]) -> Space:
    """Returns the space of a stream.

    Args:
        side: what a program owns.
        shape: the shape in which that of every wide value ends.
        nodes: wide values.
        leads: the axes before rows and columns of all else.
    """
    found = max((*(n.shape[:-2] for n in nodes), *leads), key=len, default=shape[:-2])
    return Space(side, found, *shape[-2:])
