"""A block as a graph: what it reads and gives of every value, and how."""

from __future__ import annotations

from newtriton.compiler.functions.attention import attention, log_softmax
from newtriton.compiler.graph import ops, scalar
from newtriton.compiler.graph.ir import Graph, N, Node, Op
from newtriton.compiler.graph.scalar import var
from newtriton.compiler.graph.verify import verify
from newtriton.compiler.streaming.blocks import Blocks
from newtriton.compiler.streaming.streams import in_order
from newtriton.compiler.streaming.wide import MANY

T, D = 150, 8


def blocks_of(outputs: dict[str, Node]) -> Blocks:
    graph = Graph("test", outputs)
    _, (stream,) = in_order(graph, outputs.values())
    return Blocks(stream)


def test_queries_are_cut_by_rows_and_keys_are_whole() -> None:
    q, k, v = (ops.input_(name, (N, 2, T, D)) for name in "qkv")
    blocks = blocks_of({"o": attention(q, k, v)})
    block = blocks.block((1, 1, 50, T))
    verify(block.graph)
    shapes = {read.of: leaf.shape for leaf, read in block.leaves.items()}
    assert shapes == {q: (N, 1, 50, D), k: (N, 1, T, D), v: (N, 1, T, D)}
    assert {s.of.op: (s.cut, s.summed) for s in blocks.sinks} == {
        Op.ROW_MAX: ((0, 1, 2), False),
        Op.LOG_SUM_EXP: ((0, 1, 2), False),
        Op.MATMUL: ((0, 1, 2, None), False),
    }


def test_a_value_that_is_queries_and_keys_is_read_twice() -> None:
    x = ops.input_("x", (N, 2, T, D))
    block = blocks_of({"o": attention(x, x, x)}).block((1, 2, 30, T))
    assert sorted(leaf.shape[2] for leaf in block.leaves) == [30, T]


def test_products_over_rows_are_sums_of_blocks() -> None:
    q, k, v = (ops.input_(name, (N, 2, T, D)) for name in "qkv")
    weights = attention(q, k, v).inputs[0]
    blocks = blocks_of({"sum": ops.matmul(weights, q, ta=True), "all": ops.reduce_sum(weights)})
    cuts = {s.of.shape: (s.cut, s.summed) for s in blocks.sinks if s.summed}
    assert cuts == {(N, 2, T, D): ((0, 1, None, None), True), (): ((), True)}


def test_rows_that_are_samples_are_cut_as_such() -> None:
    x, w = ops.input_("x", (N * 3, 5)), ops.param("w", (MANY, 5))
    losses = ops.reduce_sum(log_softmax(ops.matmul(x, w, tb=True)), (1,))
    blocks = blocks_of({"losses": losses})
    block = blocks.block((1, MANY))
    assert {leaf.shape for leaf in block.leaves} == {(N, 5), (MANY, 5)}
    assert blocks.elements == MANY


def test_the_batch_size_is_that_of_the_whole() -> None:
    x, w = ops.input_("x", (N, 5)), ops.param("w", (MANY, 5))
    p = ops.map_(var(0) / scalar.BATCH, log_softmax(ops.matmul(x, w, tb=True)))
    blocks = blocks_of({"losses": ops.reduce_sum(p, (1,))})
    block = blocks.block((1, MANY))
    exprs = [n["expr"] for n in block.graph.nodes() if n.op is Op.MAP]
    assert not any(scalar.BATCH in scalar.subexpressions([e]) for e in exprs)
