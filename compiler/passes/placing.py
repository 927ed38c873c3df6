"""Where the elements of a value lie: a buffer, an offset in it, and a stride for each axis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..graph.ir import Node, Op, Shape
from ..graph.transposes import groups
from ..lowering.code import Buffer
from ..lowering.indexing import At, extent
from ..lowering.tile import ZERO, Index


@dataclass(frozen=True)
class Place:
    """Where the elements of a value lie.

    Attributes:
        buffer: the memory.
        strides: by axis, how far neighbours lie apart.
        offset: where the first element lies.
    """

    buffer: Buffer
    strides: tuple[Index, ...]
    offset: Index = ZERO

    def address(self, at: At) -> Index:
        """Returns where an element lies in the buffer."""
        total = self.offset
        for index, stride in zip(at, self.strides, strict=True):
            total = total + index * stride
        return total


Places = Callable[[Node], Place]


def row_major(shape: Shape) -> tuple[Index, ...]:
    """Returns the strides of a value whose rows lie one behind the other."""
    return tuple(extent(shape[axis + 1 :]) for axis in range(len(shape)))


def in_rows(node: Node) -> Place:
    """Returns the place of a value that lies in memory of its own, row by row."""
    return Place(node, row_major(node.shape))


def looked_up(node: Node, in_memory: Callable[[Node], bool]) -> Place | None:
    """Returns where a value lies in what it is a view of; None where it has to be made first.

    Args:
        node: the value.
        in_memory: whether a value lies in memory of its own.
    """
    if in_memory(node):
        return in_rows(node)
    if node.op not in _VIEWED:
        return None
    found = looked_up(node.inputs[0], in_memory)
    return None if found is None else _VIEWED[node.op](node, found)


def _transposed(node: Node, x: Place) -> Place:
    return Place(x.buffer, tuple(x.strides[axis] for axis in node["order"]), x.offset)


def _sliced(node: Node, x: Place) -> Place:
    return Place(x.buffer, x.strides, x.offset + x.strides[node["axis"]] * node["start"])


def _copied(node: Node, x: Place) -> Place:
    own = iter(x.strides)
    strides = (ZERO if a in node["axes"] else next(own) for a in range(len(node.shape)))
    return Place(x.buffer, tuple(strides), x.offset)


def _reshaped(node: Node, x: Place) -> Place | None:
    """Splits axes, and merges those whose elements lie one behind the other."""
    old, new = node.inputs[0].shape, node.shape
    before, after = ([a for a, d in enumerate(shape) if d != 1] for shape in (old, new))
    runs = groups([old[a] for a in before], [new[a] for a in after])
    if runs is None:
        return None
    strides = [ZERO] * len(new)
    for left, right in runs:
        sources, targets = [before[i] for i in left], [after[i] for i in right]
        step = x.strides[sources[-1]]
        behind = (extent([old[a] for a in sources[i + 1 :]]) for i in range(len(sources)))
        if any(x.strides[a] is not step * by for a, by in zip(sources, behind, strict=True)):
            return None
        for i, a in enumerate(targets):
            strides[a] = step * extent([new[b] for b in targets[i + 1 :]])
    return Place(x.buffer, tuple(strides), x.offset)


_VIEWED: dict[Op, Callable[[Node, Place], Place | None]] = {
    Op.TRANSPOSE: _transposed,
    Op.SLICE: _sliced,
    Op.BROADCAST: _copied,
    Op.RESHAPE: _reshaped,
}
