"""Nodes are interned and frozen; graphs are walked without recursion and printed for people."""

import pytest

from newtriton.compiler.graph import ops
from newtriton.compiler.graph.ir import Graph, N, Op, made_at, topological


def test_equal_nodes_are_one_object() -> None:
    x = ops.input_("x", (N, 3))
    assert ops.input_("x", (N, 3)) is x
    assert ops.multiply(x, x) is ops.multiply(x, x)
    assert ops.scale(x, 2.0) is not ops.scale(x, 3.0)


def test_nodes_are_frozen() -> None:
    with pytest.raises(AttributeError, match="frozen"):
        ops.input_("x", (N,)).op = Op.PARAM


def test_deep_graphs_need_no_recursion() -> None:
    node = ops.input_("x", (N,))
    for i in range(20_000):
        node = ops.scale(node, 1.0 + i)
    assert len(topological([node])) == 20_001


def test_the_printer_names_ops_types_and_places() -> None:
    with made_at("layer 3 (Linear)"):
        s = ops.matmul(ops.input_("x", (N, 2)), ops.param("w", (5, 2)), tb=True)
    text = str(Graph("forward", {"s": s}))
    assert "forward: 1 ops" in text
    assert "matmul %0 %1" in text
    assert "N×5" in text
    assert "# layer 3 (Linear)" in text


def test_a_graph_ends_at_what_is_given() -> None:
    x = ops.input_("x", (N,))
    y = ops.scale(x, 2.0)
    z = ops.scale(y, 3.0)
    assert Graph("g", {"z": z}, frozenset({y})).computed() == [z]
