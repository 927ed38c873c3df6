"""What a causal order hides, and what keeps it from hiding anything."""

from __future__ import annotations

import pytest
import torch

from newtriton.compiler.derivatives.transpose import vjp
from newtriton.compiler.functions.attention import MASKED, attention
from newtriton.compiler.graph import ops, scalar
from newtriton.compiler.graph.ir import Graph, N, Node
from newtriton.compiler.graph.scalar import var
from newtriton.compiler.graph.simplify import simplify
from newtriton.compiler.language.network import constant_leaf, constant_name
from newtriton.compiler.streaming.hidden import hides
from newtriton.compiler.streaming.streams import in_order

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


def test_indices_that_are_not_in_order_hide_nothing() -> None:
    at, other = indices(torch.arange(T)), indices(torch.arange(T).flip(0))
    assert not all_hide({"o": attention(*qkv(), blind=False, order=(other, at))})
    assert not all_hide({"o": attention(*qkv(), blind=False, order=(at, other))})


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
