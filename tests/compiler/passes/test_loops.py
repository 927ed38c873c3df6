"""Loops of a pass: a softmax takes one, and what needs a sum of rows comes in the next."""

from __future__ import annotations

import torch

from newtriton.compiler.functions.attention import attention
from newtriton.compiler.graph import ops
from newtriton.compiler.graph.ir import Graph, N, Node, Op
from newtriton.compiler.language.network import constant_leaf, constant_name
from newtriton.compiler.passes.loops import Loop, loops_of, masked
from newtriton.compiler.passes.sinks import sinks_of
from newtriton.compiler.streaming.streams import Stream, in_order

Q, K, V = (ops.input_(name, (N, 2, 150, 8)) for name in "qkv")


def stream_of(*outputs: Node) -> Stream:
    graph = Graph("test", {str(i): n for i, n in enumerate(outputs)})
    _, (stream,) = in_order(graph, outputs)
    return stream


def loops(*outputs: Node) -> list[Loop]:
    stream = stream_of(*outputs)
    return loops_of(stream, sinks_of(stream))


def test_attention_takes_one_loop() -> None:
    (loop,) = loops(attention(Q, K, V))
    assert [s.node.op for s in loop.sinks] == [Op.ROW_MAX, Op.LOG_SUM_EXP, Op.MATMUL]
    assert loop.softmax is not None and len(loop.scaled) == 1


def test_what_has_the_weights_twice_comes_after_their_sum() -> None:
    weights = attention(Q, K, V).inputs[0]
    squares = ops.multiply(weights, weights)
    first, second = loops(ops.reduce_sum(squares, (3,)), ops.matmul(weights, V))
    assert {s.node.op for s in first.sinks} == {Op.ROW_MAX, Op.LOG_SUM_EXP, Op.MATMUL}
    assert [s.node.op for s in second.sinks] == [Op.REDUCE_SUM] and second.softmax is None


def test_what_needs_a_sum_of_its_row_comes_after_it() -> None:
    weights = attention(Q, K, V).inputs[0]
    row = ops.reduce_sum(ops.multiply(weights, ops.matmul(Q, K, tb=True)), (3,))
    again = ops.multiply(weights, ops.broadcast(row, weights.shape, (3,)))
    assert len(loops(ops.matmul(again, V))) == 2


def test_a_causal_loop_leaves_tiles_out() -> None:
    values = torch.arange(150).double()
    at = constant_leaf(constant_name(values), values)
    for order, hides in (((at, at), True), (None, False)):
        stream = stream_of(attention(Q, K, V, blind=False, order=order))
        (loop,) = loops_of(stream, sinks_of(stream))
        assert (masked(stream, loop).mask is not None) is hides
