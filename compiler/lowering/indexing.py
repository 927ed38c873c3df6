"""Positions in row-major order, from an index per axis and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..graph.ir import Dim, Shape, batch_axis, per_sample
from ..graph.transposes import groups
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


def regrouped(
    old: Shape, at: At, new: Shape, name: Callable[[Index], Index] | None = None
) -> At | None:
    """Returns the index of an element in another shape, None where that has not as many elements.

    Axes that merge or split do so for themselves; the others keep their index.

    Args:
        old: the shape that `at` is an index of.
        at: an index per axis.
        new: the other shape.
        name: names positions that several axes are split from; without it None is returned where
            axes neither merge nor split.
    """
    if per_sample(old) != per_sample(new) or (batch_axis(old) is None) != (batch_axis(new) is None):
        return None
    before, after = ([a for a, d in enumerate(shape) if d != 1] for shape in (old, new))
    runs = groups([old[a] for a in before], [new[a] for a in after]) or []
    result = [ZERO] * len(new)
    for left, right in runs:
        sources, targets = [before[i] for i in left], [after[i] for i in right]
        dims = tuple(new[a] for a in targets)
        if len(sources) > 1 < len(targets) and name is None:
            return None
        position = linear(tuple(old[a] for a in sources), tuple(at[a] for a in sources))
        if name is not None and len(sources) > 1 < len(targets):
            position = name(position)
        for a, index in zip(targets, split(dims, position), strict=True):
            result[a] = index
    return tuple(result)
