"""Positions: from an index per axis to row-major order and back."""

import itertools

from newtriton.compiler.graph.ir import N
from newtriton.compiler.lowering.indexing import extent, linear, split
from newtriton.compiler.lowering.printing import triton
from newtriton.compiler.lowering.tile import ROW, ZERO, Axis, coordinate, position


def test_an_extent_is_a_number_or_depends_on_the_batch():
    assert extent((2, 3)) is position(6) and extent(()) is position(1)
    assert triton(extent((N,))) == "batch" and triton(extent((4, N, 2))) == "batch * 8"


def test_split_is_the_inverse_of_linear():
    shape = (3, 1, 4, 2)
    for place, at in enumerate(itertools.product(*map(range, shape))):
        terms = tuple(position(i) for i in at)
        assert linear(shape, terms) is position(place)
        assert split(shape, position(place)) == terms


def test_indices_are_written_with_symbols():
    at = tuple(coordinate(axis, Axis.ROWS) for axis in range(3))
    assert triton(linear((5, N, 2), at)) == "a0 * (batch * 2) + a1 * 2 + a2"
    first, second, third = split((N, 1, 6), ROW)
    assert (triton(first), second, triton(third)) == ("r // 6", ZERO, "r % 6")
