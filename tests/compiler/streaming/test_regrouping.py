"""Rows that a reshape merges: wide values keep one shape, and all values stay what they are."""

from __future__ import annotations

import torch

from newtriton.compiler.derivatives.transpose import vjp
from newtriton.compiler.functions.attention import log_softmax, softmax
from newtriton.compiler.graph import ops
from newtriton.compiler.graph.ir import Graph, N, Node, Op, concrete, topological
from newtriton.compiler.streaming.regrouping import regrouped
from newtriton.compiler.streaming.streams import in_order
from newtriton.compiler.streaming.wide import MANY, recomputed
from newtriton.runtime.aten.executor import AtenExecutor
from newtriton.runtime.backend import Context

from ...tolerances import assert_close

LENGTH, WIDTH = 3, 5
X, W = ops.input_("x", (N, LENGTH, WIDTH)), ops.param("w", (MANY, WIDTH))
B = ops.param("b", (MANY,))


def loss() -> dict[str, Node]:
    """Logits of a sequence, the loss of their rows, and the gradient."""
    z = ops.matmul(X, W, B, tb=True)
    rows = ops.reshape(z, (N * LENGTH, MANY))
    total = ops.dot(log_softmax(rows), ops.input_("y", rows.shape))
    grads = vjp({total: ops.const(1.0)}, [X, W, B])
    return {"loss": total, **{str(i): grads[x] for i, x in enumerate((X, W, B))}}


def test_no_logits_are_written_and_values_stay() -> None:
    before = loss()
    after = regrouped(before, frozenset())
    graph = Graph("after", after)
    items, streams = in_order(graph, after.values())
    merged = [i for i in items if isinstance(i, Node) and i.shape[-1:] == (MANY,)]
    assert len(streams) == 1 and all(len(n.shape) == 1 for n in merged)
    context = Context(2, torch.float64, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    leaves = [
        n for n in Graph("before", before).nodes() if not n.inputs and "shape" in n.attributes
    ]
    feed = {
        n: torch.randn(concrete(n.shape, 2), generator=generator, dtype=torch.float64)
        for n in leaves
    }
    whole = AtenExecutor(Graph("before", before), streams=False)(context, feed)
    found = AtenExecutor(graph)(context, feed)
    for name in before:
        assert_close(found[after[name]], whole[before[name]], name)


def test_logits_that_are_asked_for_stay_as_they_are() -> None:
    z = ops.matmul(X, W, B, tb=True)
    total = ops.reduce_sum(log_softmax(ops.reshape(z, (N * LENGTH, MANY))))
    assert regrouped({"z": z, "total": total}, frozenset())["z"] is z


def test_a_graph_without_wide_values_is_left_alone() -> None:
    outputs = {"z": ops.reshape(X, (N * LENGTH, WIDTH))}
    assert regrouped(outputs, frozenset()) == outputs


def test_stacks_of_scores_that_are_merged_and_split_again() -> None:
    """As `einsum` and `bmm` leave them: products of N·2 matrices, rows normalised as N×2."""
    length, size = 150, 8
    q, k, v = (ops.input_(name, (N * 2, length, size)) for name in "qkv")
    scores = ops.reshape(ops.matmul(q, k, tb=True), (N, 2, length, length))
    weights = ops.reshape(softmax(scores), (N * 2, length, length))
    o = ops.matmul(weights, v)
    grads = vjp({o: ops.input_("ct", o.shape)}, [q, k, v])
    before = {"o": o, **{str(i): grads[x] for i, x in enumerate((q, k, v))}}
    assert {n.op for n in recomputed(topological(before.values()))} >= {Op.MATMUL, Op.MAP}
    after = regrouped(before, frozenset())
    items, streams = in_order(Graph("after", after), after.values())
    assert streams and not [n for n in items if isinstance(n, Node) and n.shape[-1] == length]
    context = Context(3, torch.float64, torch.device("cpu"))
    leaves = {n for n in topological(before.values()) if n.op is Op.INPUT}
    feed = {n: torch.randn(concrete(n.shape, 3), dtype=torch.float64) for n in leaves}
    whole = AtenExecutor(Graph("before", before), streams=False)(context, feed)
    found = AtenExecutor(Graph("before", before))(context, feed)
    for name, node in before.items():
        assert_close(found[node], whole[node], name)
