"""What leaves a stream, by how it is summed: along rows, down columns, or over more than that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..graph.ir import Node, Op, Shape
from ..streaming.streams import Stream, wide_of
from .space import Side


class Unfit(Exception):
    """Why a stream has no kernels, in words."""


@dataclass(frozen=True)
class Sink:
    """What leaves a stream.

    Attributes:
        node: the value.
        side: what the programs that compute it own; each writes its own part.
        summed: the axes of its parts that are summed afterwards.
        parts: the shape of the parts, where there is something to sum afterwards.
    """

    node: Node
    side: Side
    summed: tuple[int, ...] = ()
    parts: Shape = ()


@dataclass(frozen=True)
class Contraction:
    """A product with a wide value, over its columns or its rows.

    Attributes:
        wide: the wide operand.
        matrix: the other one.
        summed: the axis of the other one that is summed over, -2 or -1.
        kept: the axis of the result that belongs to the wide operand, -2 or -1.
        side: what is kept of the wide operand.
    """

    wide: Node
    matrix: Node
    summed: int
    kept: int
    side: Side

    @property
    def width(self) -> int:
        """The columns of the other operand."""
        size = self.matrix.shape[-1 if self.summed == -2 else -2]
        if not isinstance(size, int):
            raise Unfit(f"a product has {size} columns")
        return size


def contraction(node: Node, wide: frozenset[Node]) -> Contraction:
    """Returns how a product with a wide operand is taken."""
    x, y = node.inputs
    if x in wide:
        side = Side.COLUMNS if node["transpose_a"] else Side.ROWS
        return Contraction(x, y, -1 if node["transpose_b"] else -2, -2, side)
    side = Side.ROWS if node["transpose_b"] else Side.COLUMNS
    return Contraction(y, x, -2 if node["transpose_a"] else -1, -1, side)


Matrix = tuple[Node, int]  # and the axis of it that stands along the rows of its tile


def matrices(node: Node, side: Side) -> tuple[Matrix, Matrix]:
    """Returns the operands of a wide product: what programs own, and what they go through."""
    x, y = node.inputs[:2]
    rows = x, -1 if node["transpose_a"] else -2
    columns = y, -2 if node["transpose_b"] else -1
    return (rows, columns) if side is Side.ROWS else (columns, rows)


def sinks_of(stream: Stream) -> Sequence[Sink]:
    """Returns what leaves a stream.

    Raises:
        Unfit: something is summed in a way that programs do not sum.
    """
    wide = frozenset(wide_of(stream))
    return [_sink(node, wide, stream) for node in stream.writes]


def _sink(node: Node, wide: frozenset[Node], stream: Stream) -> Sink:
    if node in wide:
        return Sink(node, Side.ROWS)
    if node.op is Op.MATMUL:
        return Sink(node, contraction(node, wide).side)
    if node.op is Op.REDUCE_SUM:
        return _sum(node)
    return Sink(node, Side.ROWS)


def _sum(node: Node) -> Sink:
    """A sum over columns, over rows, or over one of them and further axes."""
    (x,), axes = node.inputs, node["axes"]
    last = len(x.shape) - 1
    side = Side.ROWS if last in axes else Side.COLUMNS
    first = last if side is Side.ROWS else last - 1
    if first not in axes:
        raise Unfit(f"a sum over axes {axes} keeps both rows and columns")
    rest = [axis for axis in axes if axis != first]
    if not rest:
        return Sink(node, side)
    parts = tuple(d for axis, d in enumerate(x.shape) if axis != first)
    summed = tuple(axis if axis < first else axis - 1 for axis in rest)
    return Sink(node, side, summed, parts)
