"""Streams: what goes together, in what order, and that nothing wide is read from memory."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from newtriton.compiler.derivatives.transpose import vjp
from newtriton.compiler.functions.attention import attention, log_softmax
from newtriton.compiler.graph import ops, scalar
from newtriton.compiler.graph.ir import LEAVES, Graph, N, Node, Op
from newtriton.compiler.graph.scalar import var
from newtriton.compiler.graph.simplify import simplify
from newtriton.compiler.streaming.streams import Stream, in_order
from newtriton.compiler.streaming.wide import MANY, trailing

T, D = 150, 8


def qkv() -> list[Node]:
    return [ops.input_(name, (N, 2, T, D)) for name in "qkv"]


def found(outputs: dict[str, Node], deepest: int | None = None) -> tuple[list, list[Stream]]:
    graph = Graph("test", simplify(outputs))
    return in_order(graph, graph.outputs.values(), deepest)


def check(outputs: dict[str, Node]) -> list[Stream]:
    """Every value is there before it is read; returns the streams."""
    items, streams = found(outputs)
    there: set[Node] = set()
    for item in items:
        reads = item.reads if isinstance(item, Stream) else item.inputs
        assert all(x in there or x.op in LEAVES for x in reads)
        there.update(item.writes if isinstance(item, Stream) else [item])
        wide = [x for x in reads if trailing(x.shape, frozenset({(N, 2, T, T)})) is not None]
        assert not [x for x in wide if x.op not in LEAVES]
    return streams


def ops_of(streams: Sequence[Stream]) -> list[list[str]]:
    return [[n.op.value for n in stream.writes] for stream in streams]


def test_forward_is_one_stream() -> None:
    assert ops_of(check({"o": attention(*qkv())})) == [["row_max", "log_sum_exp", "matmul"]]


def test_backward_is_a_stream_of_its_own() -> None:
    q, k, v = qkv()
    o = attention(q, k, v)
    grads = vjp({o: ops.map_(scalar.tanh(var(0)), o)}, [q, k, v])
    streams = check({name: grads[x] for name, x in zip("qkv", (q, k, v), strict=True)})
    assert len(streams) == 2
    assert sorted(n.op.value for n in streams[1].writes).count("matmul") == 3


def test_what_nobody_waits_for_goes_with_what_is_later() -> None:
    q, k, v = qkv()
    o = attention(q, k, v)
    weights = o.inputs[0]
    early = ops.matmul(weights, k, ta=True)
    late = ops.matmul(weights, ops.map_(scalar.tanh(var(0)), o))
    streams = check({"sum": ops.map_(var(0) + var(1), early, late)})
    assert ops_of(streams) == [["row_max", "log_sum_exp", "matmul"], ["matmul", "matmul"]]


@pytest.mark.parametrize(("over_rows", "count"), [(True, 1), (False, 2)])
def test_rows_of_a_product_are_there_as_they_pass(over_rows: bool, count: int) -> None:
    q, k, v = qkv()
    o = attention(q, k, v)
    product = ops.matmul(o.inputs[0], ops.map_(scalar.tanh(var(0)), o), ta=over_rows)
    assert len(check({"product": product})) == count


def test_a_value_that_is_asked_for_is_written() -> None:
    q, k, _ = qkv()
    weights = attention(q, k, ops.input_("one", (N, 2, T, D))).inputs[0]
    _, streams = found({"weights": weights})
    assert weights in [x for stream in streams for x in stream.writes]


@pytest.mark.parametrize("deepest", [None, 64])
def test_a_deep_product_is_computed_in_passing_where_one_stream_needs_it(
    deepest: int | None,
) -> None:
    x, w = ops.input_("x", (N, 100)), ops.param("w", (MANY, 100))
    losses = ops.reduce_sum(log_softmax(ops.matmul(x, w, tb=True)), (1,))
    items, streams = found({"losses": losses}, deepest)
    whole = [i for i in items if isinstance(i, Node) and i.op is Op.MATMUL]
    assert len(streams) == 1 and bool(whole) is (deepest is not None)


def test_a_sum_over_rows_that_comes_back_is_of_another_stream() -> None:
    q, k, v = qkv()
    weights = attention(q, k, v).inputs[0]
    total = ops.reduce_sum(weights, (2,))  # of every key
    again = ops.multiply(weights, ops.broadcast(total, weights.shape, (2,)))
    streams = check({"o": ops.matmul(again, v)})
    assert len(streams) == 2 and total in streams[0].writes


def test_a_sum_of_a_row_that_comes_back_is_of_the_same_stream() -> None:
    q, k, v = qkv()
    weights = attention(q, k, v).inputs[0]
    total = ops.reduce_sum(ops.multiply(weights, weights), (3,))
    again = ops.multiply(weights, ops.broadcast(total, weights.shape, (3,)))
    assert len(check({"o": ops.matmul(again, v)})) == 1
