"""Shapes: sizes with the batch in them, and values copied along axes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..graph import ops
from ..graph.ir import Dim, Node, Op, is_batched, per_sample
from ..graph.scalar import BATCH, Expr


def count(dims: Iterable[Dim]) -> Expr | float:
    """Returns the product of dimensions, by the batch size where they depend on it."""
    dims = tuple(dims)
    product = float(per_sample(dims))
    return BATCH * product if any(map(is_batched, dims)) else product


def copied(x: Node, like: Node, axes: Iterable[int]) -> Node:
    """Returns x copied along those axes of `like` that it does not have."""
    return ops.broadcast(x, like.shape, tuple(axes))


def last(x: Node, like: Node) -> Node:
    """Returns x, whose axes are the last ones of `like`, copied along those before them."""
    return copied(x, like, range(ops.rank(like) - ops.rank(x)))


def cut(x: Node, axis: int, start: int, stop: int) -> Node:
    """Returns the elements start…stop−1 of an axis."""
    if start == 0 and stop == x.shape[axis]:
        return x
    return ops.make(Op.SLICE, x, axis=axis, start=start, stop=stop)


def joined(parts: Sequence[Node], axis: int) -> Node:
    """Returns the parts one after the other along an axis."""
    return parts[0] if len(parts) == 1 else ops.make(Op.CONCAT, *parts, axis=axis)


def swapped(x: Node, axis: int) -> Node:
    """Returns x with an axis and the last one exchanged."""
    order = list(range(ops.rank(x)))
    order[axis], order[-1] = order[-1], order[axis]
    return x if axis == order[axis] else ops.transpose(x, order)
