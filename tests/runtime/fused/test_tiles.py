"""Every contraction has shapes, and every sort of shapes a tiling."""

from typing import get_args

from newtriton.compiler.graph import ops
from newtriton.compiler.graph.ir import Graph, N, Op
from newtriton.compiler.graph.scalar import var
from newtriton.compiler.lowering.kernel import ANCHORS
from newtriton.compiler.lowering.precision import rounded
from newtriton.compiler.lowering.schedule import schedule
from newtriton.runtime.fused.chips import CHIPS
from newtriton.runtime.fused.tiles import (
    SHAPES,
    TILINGS,
    Shapes,
    computable,
    pointwise_tile,
    tiling,
)


def test_tables_are_complete():
    assert set(SHAPES) == ANCHORS
    assert set(TILINGS) == set(get_args(Shapes))


def test_stacks_are_computable_unless_samples_are_columns_or_summed_over():
    stack, matrix = ops.input_("x", (N, 3, 4)), ops.param("w", (4, 5))
    assert computable(ops.matmul(stack, matrix))
    assert computable(ops.matmul(stack, ops.input_("y", (N, 4, 5))))
    samples = ops.input_("s", (N, 4))
    assert computable(ops.matmul(samples, samples, ta=True))
    assert not computable(ops.matmul(matrix, samples, ta=True, tb=True))
    assert not computable(ops.matmul(ops.input_("t", (2, N)), samples))


def test_no_tile_lies_in_two_matrices():
    x, y = ops.input_("x", (N, 4, 65, 64)), ops.input_("y", (N, 4, 65, 64))
    found = tiling(ops.matmul(x, y, tb=True), 80, "tf32", CHIPS["sm_90"])
    assert found.instances == found.tile.down(80 * 4 * 65) == 80 * 4
    assert found.tile.run == 65 and found.tile.rows == 128
    assert found.numbers["left"] == found.numbers["right"] == 80 * 4


def test_a_thread_takes_16_bytes_of_rounded_rows_too():
    x = ops.input_("x", (N, 64))
    total = ops.broadcast(ops.reduce_sum(x, (1,)), x.shape, (1,))
    y = ops.map_(var(0) * var(1), x, total)
    for precision, elements in (("tf32", 512), ("bf16", 1024)):
        (kernel,) = schedule(Graph("rows", {"y": rounded(y, precision)})).kernels
        tile = pointwise_tile(kernel, 64, 1024)
        assert tile.rows * tile.columns == elements


def test_few_rows_are_split_so_that_processors_have_work():
    deep = ops.matmul(ops.input_("d", (N, 4096)), ops.param("e", (64, 4096)), tb=True)
    few, many = (tiling(deep, n, "ieee", CHIPS["sm_90"]) for n in (64, 100_000))
    assert few.split == 8 and many.split == 1
    assert few.instances == 8


def test_rows_are_added_in_wide_tiles_and_sorted_in_parts():
    words, ct = ops.input_("w", (N, 1024), "int"), ops.input_("ct", (2, N, 1024, 768))
    found = tiling(ops.make(Op.SCATTER_ROWS, ct, words, size=50_257), 8, "bf16", CHIPS["sm_90"])
    assert (found.tile.rows, found.tile.columns, found.tile.strips) == (4, 256, 3)
    assert found.count == 8192 and found.rows == 2 * 50_257
    assert found.parts * found.tiles.part == found.count
    assert found.sums == 2 * found.parts * 768
