"""Spaces: where values live, and in which space a node is computed."""

from newtriton.compiler.graph import ops
from newtriton.compiler.graph.ir import N, Op
from newtriton.compiler.lowering.printing import triton
from newtriton.compiler.lowering.space import Space, home_space, is_partial, small, space_of
from newtriton.compiler.lowering.tile import ZERO


def test_a_value_lives_at_every_element_or_at_every_row():
    space = Space((N, 3, 1, 4), 3)
    assert space.columns == 4 and space.rows == (N, 3, 1)
    a0, a1, a2, a3 = space.coordinates
    assert a2 is ZERO and space.home((N, 3, 4)) == (a0, a1, a3)
    assert space.home((N, 1, 3)) == (a0, ZERO, a1) and space.along_rows((N, 3))
    assert space.home((4,)) is None and not space.along_rows((N, 3, 4))


def test_coordinates_follow_from_rows_and_columns():
    space = Space((N, 3, 2, 4), 2)
    texts = [triton(space.definition(axis)) for axis in range(4)]
    assert texts == ["r // 3", "r % 3", "c // 4", "c % 4"]


def test_sums_are_computed_over_what_they_sum():
    x = ops.input_("x", (N, 5))
    down, along = ops.reduce_sum(x, (0,)), ops.reduce_sum(x, (1,))
    assert is_partial(down) and space_of(down).shape == (N, 5) and home_space(down).shape == (5,)
    assert not is_partial(along) and home_space(along).shape == (N, 5)
    assert small(down) and not small(along)
    drawn = ops.make(Op.SAMPLE, x, ops.input_("u", (2, N)))
    assert space_of(drawn).shape == (2, N, 5)
