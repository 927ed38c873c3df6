"""The affine map of the last axis, whatever stands before it."""

from __future__ import annotations

import math

from ..graph import ops
from ..graph.ir import Node


def linear(x: Node, weight: Node, bias: Node | None = None) -> Node:
    """Returns x Wᵀ + b, (*lead, O), of x (*lead, I), W (O, I) and O numbers b.

    Several lead axes are one of the product, so that the weights' gradient is a single product too.
    """
    *lead, width = x.shape
    if len(lead) <= 1:
        return ops.matmul(x, weight, bias, tb=True)
    rows = ops.reshape(x, (math.prod(lead[1:], start=lead[0]), width))
    return ops.reshape(ops.matmul(rows, weight, bias, tb=True), (*lead, weight.shape[0]))
