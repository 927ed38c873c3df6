"""Where the elements of a value lie: a buffer, an offset in it, and a stride for each axis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..graph.ir import Node, Shape
from ..lowering.code import Buffer
from ..lowering.indexing import At, extent
from ..lowering.tile import ZERO, Index, position
from ..streaming.views import View


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


def viewed(view: View, batch: int) -> Place:
    """Returns the place of a value that lies in the memory of another one."""
    if not view.steps:
        return in_rows(view.of)
    layout = view.layout(batch)
    return Place(view.of, tuple(map(position, layout.strides)), position(layout.offset))
