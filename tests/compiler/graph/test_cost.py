"""Costs by hand, and those of a patch Gram by what its kernels sum."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from newtriton.compiler.graph import cost, ops, scalar
from newtriton.compiler.graph.ir import Graph, N, Node, Op
from newtriton.compiler.graph.scalar import var
from newtriton.kernels.patch_gram import Pair, lags_of, multiplications

x = ops.input_("x", (N, 3))
w = ops.param("w", (4, 3))
product = ops.matmul(x, w, tb=True)
squares = ops.map_(var(0) * var(0) + 1.0, product)


def graph(*outputs: Node) -> Graph:
    return Graph("costs", {str(i): node for i, node in enumerate(outputs)})


def test_every_op_has_a_cost() -> None:
    assert set(cost.FLOPS) == set(Op)


def test_a_product_takes_two_operations_per_weight_and_row() -> None:
    assert cost.flops(graph(product), 10) == 2 * 10 * 4 * 3
    assert cost.flops(graph(squares), 10) == 2 * 10 * 4 * 3 + 2 * 10 * 4  # a product and a sum
    assert cost.units(graph(squares)) == 1


@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_takes_as_many_operations_as_each_of_its_gradients(groups: int) -> None:
    window = {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 1), "groups": groups}
    image, weights = ops.input_("image", (N, 7, 6, 4)), ops.param("weights", (6, 3, 2, 4 // groups))
    out = ops.make(Op.CONV, image, weights, **window)
    assert out.shape == (N, 4, 5, 6)
    back = ops.make(Op.CONV_INPUT_GRAD, out, weights, size=(7, 6), **window)
    weight = ops.make(Op.CONV_WEIGHT_GRAD, out, image, kernel=(3, 2), **window)
    counted = [cost.FLOPS[node.op](node, 5) for node in (out, back, weight)]
    assert counted == [2 * 5 * 4 * 5 * 6 * 3 * 2 * 4 // groups] * 3


def test_traffic_is_what_every_op_reads_and_writes_and_views_are_free() -> None:
    read_and_written = (10 * 3 + 4 * 3) + 10 * 4
    assert cost.traffic(graph(product), 10, 4) == 4 * read_and_written
    view = ops.reshape(product, (N, 2, 2))
    assert cost.owner(ops.transpose(view, (0, 2, 1))) is product
    assert cost.traffic(graph(view), 10, 4) == 4 * read_and_written


def test_of_a_table_only_the_rows_that_are_looked_up_are_read() -> None:
    table, words = ops.param("table", (50_257, 3)), ops.input_("words", (N, 2), "int")
    rows = ops.make(Op.GATHER_ROWS, table, words)
    assert cost.traffic(graph(rows), 10, 4) == 4 * (2 * 10 * 2 * 3 + 10 * 2)


def test_at_most_two_values_of_a_chain_are_alive() -> None:
    chain = x
    for _ in range(5):
        chain = ops.map_(scalar.tanh(var(0)), chain)
    assert cost.peak(graph(chain), 10, 4) == 2 * 4 * 10 * 3
    assert cost.peak(graph(product), 10, 4) == 0  # a result is not counted


def windows(count: int) -> Iterator[tuple[Pair, Pair, Pair, Pair, Pair]]:
    """Random sizes, kernels, strides, paddings and dilations that fit."""
    draw = random.Random(0)
    limits = ((1, 9), (1, 4), (1, 3), (0, 4), (1, 3))
    while count:
        window = [(draw.randint(*limit), draw.randint(*limit)) for limit in limits]
        size, kernel, _, padding, dilation = window
        if all(
            n + 2 * p > d * (k - 1)
            for n, k, p, d in zip(size, kernel, padding, dilation, strict=True)
        ):
            count -= 1
            yield tuple(window)  # type: ignore[misc]


@pytest.mark.parametrize("groups", [1, 2])
def test_a_patch_gram_costs_what_its_kernels_sum(groups: int) -> None:
    for window in windows(200):
        size, *rest = window
        names = ("kernel", "stride", "padding", "dilation")
        image = ops.input_("image", (N, *size, 6))
        attributes = dict(zip(names, rest, strict=True))
        node = ops.make(Op.PATCH_GRAM, image, groups=groups, homogeneous=True, **attributes)
        summed = multiplications(lags_of(*window)) * 36 // groups
        assert cost.FLOPS[node.op](node, 5) == 2 * 5 * summed, window
