"""What leaves a stream: whose programs compute it, and what is summed afterwards."""

from __future__ import annotations

import pytest

from newtriton.compiler.functions.attention import softmax
from newtriton.compiler.graph import ops
from newtriton.compiler.graph.ir import Graph, N, Node
from newtriton.compiler.passes.sinks import Sink, Unfit, contraction, matrices, sinks_of
from newtriton.compiler.passes.space import Side
from newtriton.compiler.streaming.streams import in_order

Q, K = ops.input_("q", (N, 2, 150, 8)), ops.input_("k", (N, 2, 160, 8))
P = softmax(ops.matmul(Q, K, tb=True))


def sink(node: Node) -> Sink:
    _, (stream,) = in_order(Graph("test", {"out": node}), [node])
    return next(s for s in sinks_of(stream) if s.node is node)


@pytest.mark.parametrize(
    ("axes", "side", "summed"),
    [
        ((3,), Side.ROWS, ()),
        ((2,), Side.COLUMNS, ()),
        ((0, 3), Side.ROWS, (0,)),
        ((0, 1, 2, 3), Side.ROWS, (0, 1, 2)),
        ((1, 2), Side.COLUMNS, (1,)),
    ],
)
def test_sums(axes: tuple[int, ...], side: Side, summed: tuple[int, ...]) -> None:
    found = sink(ops.reduce_sum(P, axes))
    assert (found.side, found.summed) == (side, summed)


def test_a_sum_that_keeps_rows_and_columns_is_refused() -> None:
    with pytest.raises(Unfit, match="keeps both"):
        sink(ops.reduce_sum(P, (1,)))


@pytest.mark.parametrize("turned", [False, True])
def test_products_belong_to_what_they_keep(turned: bool) -> None:
    right = ops.matmul(P, Q if turned else K, ta=turned)
    assert sink(right).side is (Side.COLUMNS if turned else Side.ROWS)
    found = contraction(right, frozenset({P}))
    assert (found.wide, found.summed, found.kept, found.width) == (P, -2, -2, 8)
    rows = ops.transpose(K if turned else Q, (0, 1, 3, 2))
    left = ops.matmul(rows, P, tb=turned)
    assert sink(left).side is (Side.ROWS if turned else Side.COLUMNS)
    assert contraction(left, frozenset({P})).kept == -1


def test_a_program_owns_rows_of_one_operand_or_columns_of_the_other() -> None:
    scores = ops.matmul(Q, K, tb=True)
    assert matrices(scores, Side.ROWS) == ((Q, -2), (K, -2))
    assert matrices(scores, Side.COLUMNS) == ((K, -2), (Q, -2))
