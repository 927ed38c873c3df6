"""What contractions read, and which of them can share a loop or an accumulator."""

from __future__ import annotations

from collections.abc import Sequence

from ..graph import ops, scalar
from ..graph.ir import Node, Op, Shape
from .kernel import base
from .precision import is_rounded
from .space import is_outer


def packed(x: Node, shape: Shape, order: Sequence[int]) -> Node:
    """Returns x in another shape and order of axes; it is rounded, if it is, when it is moved."""
    if is_rounded(x):
        return ops.map_(x["expr"], packed(x.inputs[0], shape, order))
    return ops.transpose(x if x.shape == shape else ops.reshape(x, shape), order)


def contraction_operands(node: Node, by_vendor: bool) -> list[Node]:
    """Returns what a contraction reads: tensors whose last axis is contracted wherever it can be.

    The weights of an input gradient, and the sides of a matrix product that do not end in it, are
    transposed first: that is a kernel of its own, shared by all who need it.
    """
    if by_vendor:
        return [*map(base, node.inputs[:2]), *node.inputs[2:]]
    if node.op is Op.CONV_INPUT_GRAD:
        ct, w = node.inputs
        groups, (o, kh, kw, c) = node["groups"], w.shape
        apart = (groups, o // groups, kh, kw, c)
        return [base(ct), packed(w, apart, (0, 4, 2, 3, 1))]
    if node.op is Op.MATMUL and not is_outer(node):
        x, y, *bias = node.inputs
        x = _turned(x) if node["transpose_a"] else x
        y = y if node["transpose_b"] else _turned(y)
        return [base(x), base(y), *bias]
    return [*map(base, node.inputs[:2]), *node.inputs[2:]]


def _turned(x: Node) -> Node:
    """Returns x with its last two axes exchanged."""
    *lead, row, column = range(len(x.shape))
    return packed(x, x.shape, (*lead, column, row))


def coefficients(joint: Node, anchors: Sequence[Node]) -> list[scalar.Expr] | None:
    """Returns the factors with which anchors enter a map, None where they vary in the tile."""
    found = []
    for anchor in anchors:
        slope = scalar.derivative(joint["expr"], joint.inputs.index(anchor))
        for i in scalar.operands(slope):
            x = joint.inputs[i]
            if x.op is not Op.BROADCAST or x.inputs[0].shape != ():
                return None
        found.append(slope)
    return found


def loop_signature(node: Node) -> tuple[object, ...]:
    """Returns what contractions that share a loop have in common."""
    shapes = tuple(x.shape for x in node.inputs[:2])
    return node.op, shapes, tuple(sorted(node.attributes.items()))
