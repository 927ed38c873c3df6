"""Spaces of passes: what stands along the axes of a tile, and who writes what copies share."""

from __future__ import annotations

from newtriton.compiler.graph import ops
from newtriton.compiler.graph.ir import N
from newtriton.compiler.lowering.tile import COLUMN, ROW, ZERO
from newtriton.compiler.passes.space import Side, Space, Tile, space_of

WIDE = ops.input_("p", (4, N, 2, 150, 160))


def test_what_programs_own_stands_along_rows() -> None:
    by_rows = Space(Side.ROWS, (N, 2), 150, 160)
    by_columns = Space(Side.COLUMNS, (N, 2), 150, 160)
    assert by_rows.coordinates[-2:] == (ROW, COLUMN) and by_rows.own == by_columns.other == 150
    assert by_columns.coordinates[-2:] == (COLUMN, ROW) and by_columns.own == by_rows.other == 160


def test_copies_are_axes_of_their_own() -> None:
    space = space_of(Side.ROWS, WIDE.shape[1:], [WIDE], [(N, 2)])
    assert space.lead == (4, N, 2)
    assert space.at(4) == space.coordinates[1:] and space.lead_of(2) == space.before[1:]
    assert space.first_of_copies(2) is not None and space.first_of_copies(3) is None


def test_an_axis_of_one_is_not_counted() -> None:
    space = Space(Side.ROWS, (N, 1), 150, 160)
    assert space.before[1] is ZERO
    lines = list(space.definitions(Tile(64, 32)))
    assert len(lines) == 3 and "a0 = " in lines[2]
