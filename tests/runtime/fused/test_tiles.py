"""Every contraction has shapes, and every sort of shapes a tiling."""

from typing import get_args

from newtriton.compiler.graph import ops
from newtriton.compiler.graph.ir import N
from newtriton.compiler.lowering.kernel import ANCHORS
from newtriton.runtime.fused.chips import CHIPS
from newtriton.runtime.fused.tiles import SHAPES, TILINGS, Shapes, computable, tiling


def test_tables_are_complete():
    assert set(SHAPES) == ANCHORS
    assert set(TILINGS) == set(get_args(Shapes))


def test_stacks_are_not_computable_and_what_they_are_multiplied_by_is():
    stack, matrix = ops.input_("x", (N, 3, 4)), ops.param("w", (4, 5))
    assert computable(ops.matmul(stack, matrix))
    assert not computable(ops.matmul(stack, ops.input_("y", (N, 4, 5))))


def test_few_rows_are_split_so_that_processors_have_work():
    deep = ops.matmul(ops.input_("d", (N, 4096)), ops.param("e", (64, 4096)), tb=True)
    few, many = (tiling(deep, n, "ieee", CHIPS["sm_90"]) for n in (64, 100_000))
    assert few.split == 8 and many.split == 1
    assert few.instances == 8
