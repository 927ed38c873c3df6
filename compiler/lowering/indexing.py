"""Positions in row-major order, from an index per axis and back."""

from __future__ import annotations

from collections.abc import Sequence

from ..graph.ir import Dim, Shape, batch_axis, per_sample
from .tile import BATCH, ZERO, Index, position

At = tuple[Index, ...]  # an index per axis of a value


def extent(dims: Sequence[Dim]) -> Index:
    """Returns the product of dimensions; it depends on the batch size where one of them does."""
    known = per_sample(dims)
    return position(known) if batch_axis(tuple(dims)) is None else BATCH * known


def linear(shape: Shape, at: At) -> Index:
    """Returns the position of an element in row-major order: Σ index · stride."""
    total = ZERO
    for axis, index in enumerate(at):
        total = total + index * extent(shape[axis + 1 :])
    return total


def split(shape: Shape, element: Index) -> At:
    """Returns the index per axis of an element, given by its position in row-major order."""
    at = []
    for axis, dim in enumerate(shape):
        index = element // extent(shape[axis + 1 :])
        if axis and any(d != 1 for d in shape[:axis]):
            index = index % extent([dim])
        at.append(ZERO if dim == 1 else index)
    return tuple(at)
