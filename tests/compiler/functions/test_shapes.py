"""Numbers of elements with the batch in them, and axes in other places."""

from __future__ import annotations

from newtriton.compiler.functions import shapes
from newtriton.compiler.graph import ops, scalar
from newtriton.compiler.graph.ir import N, Op


def test_a_number_of_elements_may_depend_on_the_batch() -> None:
    assert shapes.count((3, 4)) == 12.0
    number = shapes.count((N * 2, 3))
    assert isinstance(number, scalar.Expr)
    assert scalar.evaluate(number, 5) == 30.0


def test_what_changes_nothing_is_no_node() -> None:
    x = ops.input_("x", (N, 4, 3))
    assert shapes.cut(x, 1, 0, 4) is x
    assert shapes.joined([x], 1) is x
    assert shapes.swapped(x, 2) is x


def test_axes_are_cut_joined_swapped_and_copied() -> None:
    x = ops.input_("x", (N, 4, 3))
    assert shapes.cut(x, 1, 1, 3).shape == (N, 2, 3)
    assert shapes.joined([x, x], 2).shape == (N, 4, 6)
    assert shapes.swapped(x, 1).shape == (N, 3, 4)
    assert shapes.last(ops.input_("b", (3,)), x).op is Op.BROADCAST
    assert shapes.copied(ops.input_("m", (N,)), x, (1, 2)).shape == x.shape
