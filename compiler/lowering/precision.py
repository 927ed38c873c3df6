"""The graph that kernels compute: operands of contractions rounded, sums and maxima in stages.

What is made of wide rows, which streams pass through, needs no stages.

Reduced precision is a rewrite: operands of contractions pass through a rounding map.

The map belongs to the kernel that produces the operand, so an operand is stored as it is
multiplied; sums, losses and statistics stay in float32.
"""

from __future__ import annotations

from ..graph import ops, scalar
from ..graph.ir import CONTRACTIONS, Graph, Node, Op, Shape, topological
from ..streaming.streams import OF_ROWS
from ..streaming.wide import trailing, wide_shapes
from .elements import in_stages

ROUNDED = ("tf32", "bf16")


def two_products(precision: str) -> bool:
    """Whether quadratic forms take two products a layer rather than three.

    Tensor cores wait for operands: three products of four operands are as fast there as two.
    """
    return precision not in ROUNDED


def rounded(node: Node, precision: str) -> Node:
    """Returns the nearest values of a precision."""
    return ops.map_(scalar.unary(precision, scalar.var(0)), node)


def is_rounded(node: Node) -> bool:
    """Whether a value is the rounded copy of another."""
    return node.op is Op.MAP and node["expr"].op in ROUNDED


def with_precision(graph: Graph, precision: str) -> tuple[Graph, dict[Node, Node]]:
    """Returns the graph with rounded operands and sums in stages, and what its nodes have become.

    Programs of one network stay programs of one network: equal nodes become equal nodes.
    """
    new: dict[Node, Node] = {}
    roots = [*graph.outputs.values(), *graph.given]
    shapes = wide_shapes(roots)
    for node in topological(roots):
        inputs = [new[x] for x in node.inputs]
        if node.op in CONTRACTIONS and precision in ROUNDED:
            inputs[:2] = [rounded(x, precision) for x in inputs[:2]]
        if passing := _in_passing(node, shapes):
            inputs[0] = _as_map(inputs[0])
        made = ops.remake(node, tuple(inputs))
        new[node] = made if passing else in_stages(made)
    outputs = {name: new[node] for name, node in graph.outputs.items()}
    return Graph(graph.name, outputs, frozenset(new[n] for n in graph.given)), new


def _in_passing(node: Node, shapes: frozenset[Shape]) -> bool:
    """Whether a node is made of wide rows, or is a sum of wide values."""
    if node.op is not Op.REDUCE_SUM and node.op not in OF_ROWS:
        return False
    return trailing(node.inputs[0].shape, shapes) is not None


def _as_map(x: Node) -> Node:
    """Returns a wide value that streams take, also where what they read is whole in memory."""
    return x if x.op is Op.MAP else ops.map_(scalar.var(0), x)
