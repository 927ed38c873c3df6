"""Local rewrites that never change a value: a table op → rule, applied once, operands first.

No rule looks at a node's users, so the same subgraph simplifies to the same nodes in every program:
that is how programs recognise what a linearization has already computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from . import ops, scalar
from .ir import Node, Op, made_at, rewrite
from .transposes import moved_behind


def _number(node: Node) -> scalar.Expr | None:
    """Returns the value of a constant, also of a broadcast one; None for other nodes."""
    if node.op is Op.BROADCAST:
        node = node.inputs[0]
    return node["value"] if node.op is Op.CONST else None


def _map(node: Node) -> Node:
    """Moves constants into the expression; operands stand once, and only where they are read."""
    numbers = [_number(x) for x in node.inputs]
    kept: dict[Node, scalar.Expr] = {}
    operands = {}
    for i in scalar.operands(node["expr"]):
        x, number = node.inputs[i], numbers[i]
        operands[i] = number if number is not None else kept.setdefault(x, scalar.var(len(kept)))
    expr = scalar.substitute(node["expr"], operands)
    kept_inputs = [x for x, v in kept.items() if int(v.value or 0) in scalar.operands(expr)]
    if len(kept_inputs) < len(kept):
        return (
            _map(ops.map_(expr, *kept))
            if kept_inputs
            else ops.broadcast(ops.const(expr), node.shape)
        )
    if expr.op == "var" and kept_inputs[0].type.kind == "float":
        return kept_inputs[0]
    return (
        ops.map_(expr, *kept_inputs) if kept_inputs else ops.broadcast(ops.const(expr), node.shape)
    )


def _reshape(node: Node) -> Node:
    (x,) = node.inputs
    if x.op is Op.RESHAPE:
        return _reshape(ops.reshape(x.inputs[0], node.shape))
    return x if x.shape == node.shape else node


def _transpose(node: Node) -> Node:
    (x,) = node.inputs
    order = node["order"]
    if x.op is Op.TRANSPOSE:
        return _transpose(ops.transpose(x.inputs[0], [x["order"][i] for i in order]))
    moved = [i for i in order if x.shape[i] != 1]
    return _reshape(ops.reshape(x, node.shape)) if moved == sorted(moved) else node


def _broadcast(node: Node) -> Node:
    (x,) = node.inputs
    if x.op is not Op.BROADCAST:
        return node
    old = [i for i in range(len(node.shape)) if i not in node["axes"]]
    axes = sorted({*node["axes"], *(old[i] for i in x["axes"])})
    return ops.broadcast(x.inputs[0], node.shape, axes)


SIMPLIFY: dict[Op, Callable[[Node], Node]] = {
    Op.MAP: _map,
    Op.RESHAPE: _reshape,
    Op.TRANSPOSE: _transpose,
    Op.BROADCAST: _broadcast,
}


def simplify(outputs: Mapping[str, Node]) -> dict[str, Node]:
    """Returns the same values from fewer and simpler nodes, each made where its node was."""

    def rule(node: Node, inputs: tuple[Node, ...]) -> Node:
        with made_at(node.place):
            return _simplified(ops.remake(node, inputs))

    return rewrite(outputs, rule)


def _simplified(node: Node) -> Node:
    """Returns a node over simple operands in its simplest form."""
    node = SIMPLIFY[node.op](node) if node.op in SIMPLIFY else node
    return moved_behind(node, _simplified)
