"""What a causal order hides, and what keeps it from hiding anything."""

from __future__ import annotations

import pytest
import torch

from newtriton.compiler.derivatives.transpose import vjp
from newtriton.compiler.functions.attention import MASKED, attention
from newtriton.compiler.graph import ops, scalar
from newtriton.compiler.graph.ir import Graph, N, Node, Op, topological
from newtriton.compiler.graph.scalar import var
from newtriton.compiler.graph.simplify import simplify
from newtriton.compiler.language.network import constant_leaf, constant_name
from newtriton.compiler.streaming.hidden import mask_of, vanishes
from newtriton.compiler.streaming.streams import Stream, in_order, wide_of

T, D = 150, 8


def indices(values: torch.Tensor) -> Node:
    values = values.double()
    return constant_leaf(constant_name(values), values)


def qkv() -> list[Node]:
    return [ops.input_(name, (N, 2, T, D)) for name in "qkv"]


def all_hide(outputs: dict[str, Node]) -> bool:
    graph = Graph("test", simplify(outputs))
    _, streams = in_order(graph, graph.outputs.values())
    assert streams
    return all(map(hides, streams))


def hides(stream: Stream) -> bool:
    mask = mask_of(stream)
    return mask is not None and vanishes(stream, mask, stream.writes, wide_of(stream))


@pytest.mark.parametrize("backward", [False, True])
def test_a_causal_order_hides_later_keys(backward: bool) -> None:
    q, k, v = qkv()
    at = indices(torch.arange(T))
    o = attention(q, k, v, blind=False, order=(at, at))
    outputs = {"o": o}
    if backward:
        found = vjp({o: ops.input_("ct", o.shape)}, [q, k, v])
        outputs |= {str(i): found[x] for i, x in enumerate((q, k, v))}
    assert all_hide(outputs)


def test_a_score_that_is_low_is_no_zero_beside_another() -> None:
    """The difference of two masked scores is moderate, though each of them is low."""
    q, k, v = qkv()
    at = indices(torch.arange(T))
    o = attention(q, k, v, blind=False, order=(at, at))
    (scores,) = {n for n in topological([o]) if n.op is Op.ROW_MAX}.pop().inputs
    doubled = ops.map_(scalar.exp(var(0) - var(1)), scores, ops.scale(scores, 1.0000001))
    assert not all_hide({"o": o, "sum": ops.matmul(doubled, v)})


def test_other_masks_hide_nothing() -> None:
    mask = ops.input_("mask", (T, T))
    assert not all_hide({"o": attention(*qkv(), mask)})
    assert not all_hide({"o": attention(*qkv())})


def test_a_sum_of_scores_sees_everything() -> None:
    q, k, v = qkv()
    at = indices(torch.arange(T))
    o = attention(q, k, v, blind=False, order=(at, at))
    scores = ops.matmul(q, k, tb=True)
    total = ops.reduce_sum(ops.map_(var(0) * var(0), scores))
    assert not all_hide({"o": o, "total": total})


def test_a_weight_that_is_not_zero_where_it_is_masked_hides_nothing() -> None:
    q, k, v = qkv()
    at = indices(torch.arange(T))
    weights = attention(q, k, v, blind=False, order=(at, at)).inputs[0]
    raised = ops.map_(var(0) + 1.0, weights)
    assert not all_hide({"o": ops.matmul(raised, v)})
    low = ops.map_(scalar.where(var(0), 1.0, MASKED), weights)
    assert not all_hide({"o": ops.matmul(low, v)})
