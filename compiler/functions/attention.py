"""Softmax along an axis, and attention as matrix products around it."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..graph import ops, scalar
from ..graph.ir import Node
from ..graph.scalar import var
from .shapes import copied, swapped

MASKED = -1e30  # what a mask adds where nothing may be seen; finite, so that 0·MASKED is a number


def softmax(x: Node, axis: int = -1) -> Node:
    """Returns e^x by its sum along an axis, without overflow."""
    return swapped(ops.softmax(swapped(x, axis % ops.rank(x))), axis % ops.rank(x))


def log_softmax(x: Node, axis: int = -1) -> Node:
    """Returns x less the logarithm of the sum of e^x along an axis, without overflow."""
    axis %= ops.rank(x)
    rows = swapped(x, axis)
    total = copied(ops.log_sum_exp(rows), rows, (ops.rank(x) - 1,))
    return swapped(ops.map_(var(0) - var(1), rows, total), axis)


def masked_softmax(scores: Node) -> Node:
    """Returns the softmax of rows, 0 where a score is as low as a mask makes it.

    A row of masked scores alone gives zeros, as PyTorch's attention does.
    """
    seen = scalar.where(var(0) - 0.5 * MASKED, var(1), 0.0)
    return ops.map_(seen, scores, ops.softmax(scores))


def causal_mask(queries: int, keys: int) -> Tensor:
    """Returns the mask by which query i sees keys 0…i, to be added to scores."""
    return additive(torch.ones(queries, keys, dtype=torch.bool).tril())


def additive(mask: Tensor) -> Tensor:
    """Returns a mask of True for what is seen, or of numbers with −∞, as finite numbers to add."""
    if mask.dtype is torch.bool:
        return torch.zeros(mask.shape).masked_fill(~mask, MASKED)
    return mask.clamp(min=MASKED)


def attention(
    q: Node,
    k: Node,
    v: Node,
    mask: Node | None = None,
    scale: float | None = None,
    blind: bool = True,
    thinned: Callable[[Node], Node] = lambda weights: weights,
) -> Node:
    """Returns softmax(scale·q kᵀ + mask) v.

    Args:
        q: queries, (N, heads, T, d).
        k: keys, (N, heads, S, d), or with fewer heads, each for several heads of the queries that
            follow each other.
        v: values, (N, as many heads as keys, S, e).
        mask: what is added to the scores, over their trailing axes; `causal_mask` and `additive`
            make it.
        scale: the factor of the scores; 1/√d unless given.
        blind: whether the mask may leave a query nothing to see, so that it gets zeros.
        thinned: what is done to the weights, a dropout for example.
    """
    heads = q.shape[-3]
    k, v = (_repeated(x, heads) for x in (k, v))
    factor = 1.0 / math.sqrt(q.shape[-1]) if scale is None else float(scale)
    scores = ops.matmul(q, k, tb=True)
    if mask is None:
        scores = ops.scale(scores, factor)
    else:
        lead = range(ops.rank(scores) - ops.rank(mask))
        scores = ops.map_(var(0) * factor + var(1), scores, copied(mask, scores, lead))
    weights = softmax(scores) if mask is None or not blind else masked_softmax(scores)
    return ops.matmul(thinned(weights), v)


def _repeated(x: Node, heads: int) -> Node:
    """Returns x with each of its heads repeated, so that there are `heads`."""
    *lead, own, length, width = x.shape
    if own == heads:
        return x
    shape = (*lead, own, heads // own, length, width)
    return ops.reshape(ops.broadcast(x, shape, (len(lead) + 1,)), (*lead, heads, length, width))
