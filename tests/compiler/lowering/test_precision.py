"""Operands of contractions are rounded, once each, and nothing else is."""

from __future__ import annotations

import pytest

from newtriton.compiler.graph import ops, scalar
from newtriton.compiler.graph.ir import Graph, N
from newtriton.compiler.graph.scalar import var
from newtriton.compiler.lowering.precision import (
    ROUNDED,
    is_rounded,
    rounded,
    two_products,
    with_precision,
)

x, w, bias = ops.input_("x", (N, 3)), ops.param("w", (3, 3)), ops.param("b", (3,))
first = ops.matmul(x, w, bias, tb=True)
hidden = ops.map_(scalar.tanh(var(0)), first)
GRAPH = Graph("two", {"out": ops.matmul(hidden, w, tb=True), "hidden": hidden})


@pytest.mark.parametrize("precision", ROUNDED)
def test_both_operands_are_rounded_and_the_bias_is_not(precision: str) -> None:
    graph, new = with_precision(GRAPH, precision)
    assert new[first].inputs == (rounded(x, precision), rounded(w, precision), bias)
    assert graph.outputs["out"].inputs == (rounded(new[hidden], precision), rounded(w, precision))
    assert sum(map(is_rounded, graph.nodes())) == 3  # w once, though two products read it
    assert not is_rounded(graph.outputs["hidden"])
    assert not two_products(precision)


@pytest.mark.parametrize("precision", ["ieee", "tf32x3"])
def test_other_precisions_leave_the_graph_as_it_is(precision: str) -> None:
    graph, new = with_precision(GRAPH, precision)
    assert graph.outputs == GRAPH.outputs
    assert all(node is become for node, become in new.items())
    assert two_products(precision)


def test_given_values_stay_given() -> None:
    graph, new = with_precision(
        Graph("rest", {"out": GRAPH.outputs["out"]}, frozenset({hidden})), "bf16"
    )
    assert graph.given == {new[hidden]}
