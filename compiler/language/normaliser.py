"""What the sum of a batch's losses is divided by: a number of the batch size, or a node.

Where every sample counts alike that is known before any label is, and the graphs have it as a
number. Where labels decide what counts, it is a value of the graph.
"""

from __future__ import annotations

import math

from ..graph import ops, scalar
from ..graph.ir import Node, Op
from ..graph.scalar import BATCH, ONE, Expr, var


def split(normaliser: Node) -> tuple[Expr, Node | None]:
    """Returns two factors of a normaliser: a number of the batch size, and a node or None for 1."""
    return (normaliser["value"], None) if normaliser.op is Op.CONST else (ONE, normaliser)


def over(x: Node, normaliser: Node) -> Node:
    """Returns x divided by the normaliser."""
    number, counted = split(normaliser)
    if counted is None:
        return ops.scale(x, scalar.reciprocal(number))
    return ops.map_(var(0) / var(1), x, ops.broadcast(counted, x.shape))


def of_samples(x: Node, normaliser: Node, number: float = 1.0) -> Node:
    """Returns adjoints x times √(M/N) and a number.

    Those of the mean loss carry 1/M. N times a sum of their squares, as it is taken where every
    sample counts 1, thus becomes M times that sum.
    """
    size, counted = split(normaliser)
    if counted is None:
        return ops.scale(x, number * math.sqrt(scalar.evaluate(size, 1)))
    root = scalar.sqrt(var(1) * scalar.reciprocal(BATCH))
    return ops.map_(number * var(0) * root, x, ops.broadcast(counted, x.shape))
