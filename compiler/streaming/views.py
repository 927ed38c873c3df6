"""Where a value lies that is another one's memory, seen with other strides.

Queries, keys and values are slices of one projection, split into heads and transposed. A stream
reads them where they lie.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from ..graph.ir import VIEWS, Node, Op, concrete
from ..graph.transposes import groups


class Layout(NamedTuple):
    """Where the elements of a value lie in memory.

    Attributes:
        sizes: the size of every axis.
        strides: by how many elements neighbours along an axis lie apart.
        offset: the element with which it begins.
    """

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class View:
    """A value in the memory of another one.

    Attributes:
        of: the value that is in memory, in row-major order.
        steps: the slices, broadcasts, transposes and reshapes that lead from there.
    """

    of: Node
    steps: Sequence[Node] = ()

    def layout(self, batch: int) -> Layout:
        """Returns where the value lies at a batch size."""
        found = _followed(self.of, self.steps, batch)
        assert found is not None, "a view was checked when it was made"
        return found


def view(x: Node, in_memory: Callable[[Node], bool], batch: int) -> View:
    """Returns a value as it lies in the memory of the farthest value whose memory it can share.

    Args:
        x: the value.
        in_memory: whether a value is in memory anyway.
        batch: the batch size.
    """
    steps: list[Node] = []
    found = [View(x)]
    while x.op in VIEWS and not in_memory(x):
        steps = [x, *steps]
        (x,) = x.inputs
        found.append(View(x, steps))
    fitting = (v for v in found[::-1] if _followed(v.of, v.steps, batch) is not None)
    return next(v for v in fitting if v.of.op is not Op.RESHAPE or in_memory(v.of))


def _followed(of: Node, steps: Sequence[Node], batch: int) -> Layout | None:
    """Returns where the last of some steps lies; None where it has no strides."""
    sizes = concrete(of.shape, batch)
    layout = Layout(sizes, _row_major(sizes), 0)
    for step in steps:
        if layout is not None:
            layout = _step(layout, step, batch)
    return layout


def _row_major(sizes: Sequence[int]) -> tuple[int, ...]:
    return tuple(math.prod(sizes[axis + 1 :]) for axis in range(len(sizes)))


def _step(layout: Layout, step: Node, batch: int) -> Layout | None:
    """Returns where a view of a value lies."""
    sizes, (old, strides, offset) = concrete(step.shape, batch), layout
    if step.op is Op.SLICE:
        return Layout(sizes, strides, offset + step["start"] * strides[step["axis"]])
    if step.op is Op.TRANSPOSE:
        return Layout(sizes, tuple(strides[axis] for axis in step["order"]), offset)
    if step.op is Op.BROADCAST:
        kept = iter(strides)
        new = (0 if axis in step["axes"] else next(kept) for axis in range(len(sizes)))
        return Layout(sizes, tuple(new), offset)
    found = _regrouped(old, strides, sizes)
    return None if found is None else Layout(sizes, found, offset)


def _regrouped(
    old: Sequence[int], strides: Sequence[int], new: Sequence[int]
) -> tuple[int, ...] | None:
    """Returns the strides in another shape; None where axes merge that do not follow each other."""
    before, after = ([a for a, d in enumerate(sizes) if d != 1] for sizes in (old, new))
    result = [0] * len(new)
    for left, right in groups([old[a] for a in before], [new[a] for a in after]) or []:
        sources, targets = [before[i] for i in left], [after[i] for i in right]
        if any(strides[a] != old[b] * strides[b] for a, b in _neighbours(sources)):
            return None
        stride = strides[sources[-1]]
        for a in targets[::-1]:
            result[a], stride = stride, stride * new[a]
    return tuple(result)


def _neighbours(axes: Sequence[int]) -> Iterator[tuple[int, int]]:
    return pairwise(axes)
