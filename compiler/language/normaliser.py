"""What the sum of a batch's losses is divided by: a number of the batch size, or a node.

Where every sample counts alike that is known before any label is, and the graphs have it as a
number. Where labels decide what counts, it is a value of the graph.
"""

from __future__ import annotations

from ..graph import ops, scalar
from ..graph.ir import Node, Op
from ..graph.scalar import ONE, Expr, var


def split(normaliser: Node) -> tuple[Expr, Node | None]:
    """Returns two factors of a normaliser: a number of the batch size, and a node or None for 1."""
    return (normaliser["value"], None) if normaliser.op is Op.CONST else (ONE, normaliser)


def times(x: Node, counted: Node | None) -> Node:
    """Returns x times a scalar node; None is 1."""
    return x if counted is None else ops.multiply(x, ops.broadcast(counted, x.shape))


def over(x: Node, normaliser: Node) -> Node:
    """Returns x divided by the normaliser."""
    number, counted = split(normaliser)
    if counted is None:
        return ops.scale(x, scalar.reciprocal(number))
    return ops.map_(var(0) / var(1), x, ops.broadcast(counted, x.shape))
