"""Transposes cancel wherever that is possible, and no value changes."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from newtriton.compiler.graph import ops, scalar
from newtriton.compiler.graph.ir import Graph, N, Node, Op, concrete
from newtriton.compiler.graph.scalar import var
from newtriton.compiler.graph.simplify import simplify
from newtriton.compiler.graph.verify import verify
from newtriton.runtime.aten.executor import AtenExecutor
from newtriton.runtime.backend import Context

from ...tolerances import assert_close

BATCH = 3
IMAGE = (0, 3, 1, 2)  # from N×H×W×C to PyTorch's order
BACK = (0, 2, 3, 1)


def transposes(node: Node) -> int:
    return sum(n.op is Op.TRANSPOSE for n in Graph("g", {"x": node}).nodes())


def simple(node: Node) -> Node:
    found = simplify({"x": node})["x"]
    verify(Graph("simple", {"x": found}))
    return found


def normalised(x: Node) -> Node:
    """Returns a norm over all axes but the channels, which are the second one."""
    axes = (0, 2, 3)
    mean = ops.scale(ops.reduce_sum(x, axes), 0.01)
    centred = ops.map_(var(0) - var(1), x, ops.broadcast(mean, x.shape, axes))
    return ops.multiply(centred, ops.broadcast(ops.input_("gain", (4,)), x.shape, axes))


def test_a_norm_in_pytorchs_order_between_convolutions_needs_no_transpose():
    x, w = ops.input_("x", (N, 6, 6, 4)), ops.input_("w", (4, 3, 3, 4))
    window = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
    for _ in range(2):
        image = ops.transpose(ops.make(Op.CONV, x, w, **window), IMAGE)
        active = ops.map_(scalar.sigmoid(var(0)), normalised(image))
        padded = ops.make(Op.PAD, active, axis=2, low=0, high=1)
        sliced = ops.make(Op.SLICE, padded, axis=2, start=0, stop=6)
        both = ops.make(Op.CONCAT, sliced, image, axis=1)
        x = ops.transpose(ops.make(Op.SLICE, both, axis=1, start=2, stop=6), BACK)
    assert transposes(simple(x)) == 0


def test_pixels_become_tokens_without_a_transpose():
    image = ops.transpose(ops.input_("x", (N, 4, 6, 5)), IMAGE)
    tokens = ops.transpose(ops.reshape(image, (N, 5, 24)), (0, 2, 1))
    assert simple(tokens) is ops.reshape(ops.input_("x", (N, 4, 6, 5)), (N, 24, 5))


def test_a_product_exchanges_the_axes_of_its_operands_itself():
    q = ops.transpose(ops.reshape(ops.input_("x", (N, 7, 12)), (N, 7, 3, 4)), (0, 2, 1, 3))
    scores = simple(ops.matmul(q, ops.transpose(q, (0, 1, 3, 2))))
    assert scores["transpose_b"] and scores.inputs[0] is scores.inputs[1]
    x, w = ops.input_("x", (N, 5)), ops.param("w", (2, 5))
    assert simple(ops.matmul(x, ops.transpose(w, (1, 0)))) is ops.matmul(x, w, tb=True)


@st.composite
def graphs(draw: st.DrawFn) -> Node:
    """Returns a node made of transposes, views, sums and maps."""
    shapes = [(N, 2, 3, 4), (2, N, 6), (3, N * 2, 2)]
    x = ops.input_("x", draw(st.sampled_from(shapes)))
    for step in range(draw(st.integers(1, 8))):
        rank = len(x.shape)
        kind = draw(st.sampled_from(["transpose", "transpose", "map", "sum", "split", "merge"]))
        if kind == "transpose":
            x = ops.transpose(x, draw(st.permutations(range(rank))))
        elif kind == "map":
            kept = draw(st.sets(st.integers(0, rank - 1), max_size=rank - 1)) if rank else set()
            small = ops.input_(f"b{step}", tuple(x.shape[a] for a in sorted(kept)))
            axes = [a for a in range(rank) if a not in kept]
            x = ops.map_(var(0) * 0.5 - var(1), x, ops.broadcast(small, x.shape, axes))
        elif kind == "sum" and rank > 2:
            x = ops.reduce_sum(x, (draw(st.integers(0, rank - 1)),))
        elif kind == "merge" and rank > 1:
            a = draw(st.integers(0, rank - 2))
            x = ops.reshape(x, (*x.shape[:a], x.shape[a] * x.shape[a + 1], *x.shape[a + 2 :]))
        elif kind == "split":
            a = draw(st.integers(0, rank - 1))
            if isinstance(x.shape[a], int) and x.shape[a] % 2 == 0:
                x = ops.reshape(x, (*x.shape[:a], 2, x.shape[a] // 2, *x.shape[a + 1 :]))
    return x


@settings(max_examples=150, deadline=None)
@given(graphs())
def test_values_stay_what_they_are(node: Node):
    context = Context(BATCH, torch.float64, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    leaves = [n for n in Graph("g", {"x": node}).nodes() if n.op is Op.INPUT]
    feed = {
        n: torch.randn(concrete(n.shape, BATCH), generator=generator, dtype=torch.float64)
        for n in leaves
    }
    found = simple(node)
    before, after = (AtenExecutor(Graph("g", {"x": n}))(context, feed)[n] for n in (node, found))
    assert_close(after, before)


@pytest.mark.parametrize("order", [*itertools.permutations(range(4))])
def test_a_copied_row_moves_with_any_transpose(order: tuple[int, ...]):
    x, row = ops.input_("x", (N, 2, 3, 4)), ops.input_("row", (3, 4))
    moved = ops.transpose(x, order)
    kept = sorted(order.index(a) for a in (2, 3))
    row = ops.transpose(row, tuple(order[a] - 2 for a in kept))
    axes = [a for a in range(4) if a not in kept]
    total = ops.map_(var(0) + var(1), moved, ops.broadcast(row, moved.shape, axes))
    back = ops.transpose(total, tuple(order.index(a) for a in range(4)))
    assert transposes(simple(back)) == 0
