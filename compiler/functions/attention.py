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
AFTER = var(1) - var(0) - 0.5  # above 0 where the index of a key is above that of its query


def softmax(x: Node, axis: int = -1) -> Node:
    """Returns e^x by its sum along an axis, without overflow.

    Rows are shifted to a maximum of 0, since e^(x − log Σ e^x) would round as x does.
    """
    axis %= ops.rank(x)
    rows = swapped(x, axis)
    largest = copied(ops.row_max(rows, stabiliser=True), rows, (ops.rank(x) - 1,))
    return swapped(ops.softmax(ops.map_(var(0) - var(1), rows, largest)), axis)


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
    return ops.map_(seen, scores, softmax(scores))


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
    order: tuple[Node, Node] | None = None,
) -> Node:
    """Returns softmax(scale·q kᵀ + mask) v.

    Args:
        q: queries, (N, heads, T, d).
        k: keys, (N, heads, S, d), or with fewer heads, each for several heads of the queries that
            follow each other.
        v: values, (N, as many heads as keys, S, e).
        mask: what is added to the scores, over their trailing axes; `additive` makes it.
        scale: the factor of the scores; 1/√d unless given.
        blind: whether the mask may leave a query nothing to see, so that it gets zeros.
        thinned: what is done to the weights, a dropout for example.
        order: the indices of the queries and of the keys, T and S numbers, where a query sees only
            keys up to its own index.
    """
    heads = q.shape[-3]
    k, v = (_repeated(x, heads) for x in (k, v))
    factor = 1.0 / math.sqrt(q.shape[-1]) if scale is None else float(scale)
    scores = ops.matmul(q, k, tb=True)
    expr, operands = var(0) * factor, [scores]
    if mask is not None:
        expr, lead = expr + var(1), range(ops.rank(scores) - ops.rank(mask))
        operands.append(copied(mask, scores, lead))
    if order is not None:
        at = {i: var(len(operands) + i) for i in (0, 1)}
        expr = expr + scalar.branch(scalar.substitute(AFTER, at), MASKED, 0.0)
        operands += _indices(order, scores)
    scores = ops.map_(expr, *operands)
    weights = softmax(scores) if mask is None or not blind else masked_softmax(scores)
    return ops.matmul(thinned(weights), v)


def _indices(order: tuple[Node, Node], scores: Node) -> list[Node]:
    """Returns the indices of queries and of keys for every score: no mask lies in memory."""
    *lead, row, column = range(ops.rank(scores))
    queries, keys = order
    return [copied(queries, scores, (*lead, column)), copied(keys, scores, (*lead, row))]


def _repeated(x: Node, heads: int) -> Node:
    """Returns x with each of its heads repeated, so that there are `heads`."""
    *lead, own, length, width = x.shape
    if own == heads:
        return x
    shape = (*lead, own, heads // own, length, width)
    return ops.reshape(ops.broadcast(x, shape, (len(lead) + 1,)), (*lead, heads, length, width))
