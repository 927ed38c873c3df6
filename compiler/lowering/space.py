"""The space that a kernel computes in tiles, and in which space a node is computed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from ..graph.ir import Node, Op, Shape, batch_axis, show
from .elements import Reduction, reduction
from .indexing import At, regrouped, split
from .tile import COLUMN, NOWHERE, ROW, ROWS, ZERO, Axis, Index, coordinate

GRAMS = frozenset({Op.GRAM, Op.PATCH_GRAM})


@dataclass(frozen=True)
class Space:
    """What a kernel computes: rows × columns, cut into tiles.

    Attributes:
        shape: the axes of the space; the batch size may be among them.
        cut: how many of the first axes are the rows; the others are the columns.
    """

    shape: Shape
    cut: int

    @property
    def rows(self) -> Shape:
        """The axes along the rows."""
        return self.shape[: self.cut]

    @cached_property
    def columns(self) -> int:
        """The length of a row."""
        return math.prod(self.shape[self.cut :])

    @cached_property
    def coordinates(self) -> At:
        """The coordinates a0, a1, … of an element; an axis of length one is always at 0."""
        along = [Axis.ROWS] * self.cut + [Axis.COLUMNS] * (len(self.shape) - self.cut)
        return tuple(
            ZERO if d == 1 else coordinate(axis, span)
            for axis, (d, span) in enumerate(zip(self.shape, along, strict=True))
        )

    def definition(self, axis: int) -> Index:
        """Returns a coordinate in terms of r and c, the row and the column in the space."""
        if axis < self.cut:
            return split(self.rows, ROW)[axis]
        return split(self.shape[self.cut :], COLUMN)[axis - self.cut]

    @cached_property
    def _homes(self) -> dict[Shape, At | None]:
        return {}

    def home(self, shape: Shape) -> At | None:
        """Returns where a value of this shape lives, or None where it has no place.

        A value lives at every element of the space, or at every row, in their order; axes of the
        space may be merged or split for it.
        """
        if shape not in self._homes:
            self._homes[shape] = self._home(shape)
        return self._homes[shape]

    def _home(self, shape: Shape) -> At | None:
        whole = regrouped(self.shape, self.coordinates, shape)
        return regrouped(self.rows, self.coordinates, shape) if whole is None else whole

    def along_rows(self, shape: Shape) -> bool:
        """Whether a value of this shape lives along the rows, one element each."""
        home = self.home(shape) or ()
        return self.columns > 1 and NOWHERE.union(*(i.spans for i in home)) == ROWS

    def __str__(self) -> str:
        return show(self.shape)


def space_of(node: Node) -> Space:
    """Returns the space in which a node is computed: its own, or that of the rows it sums."""
    if node.op in (Op.CONV_WEIGHT_GRAD, Op.PATCH_GRAM, Op.GRAM):
        return Space(node.shape, len(node.shape) - 1 if node.op in GRAMS else 1)
    shape = node.shape
    if node.op is Op.SAMPLE:
        shape = (*node.shape, node.inputs[0].shape[-1])
    elif in_rows(node) or is_partial(node):
        shape = node.inputs[0].shape
    return in_rows_of_last_axis(shape)


def in_rows_of_last_axis(shape: Shape) -> Space:
    """Returns the space of a shape; a multiple of the batch size is never a column's."""
    batched = batch_axis(shape)
    return Space(shape, max(0 if batched is None else batched + 1, len(shape) - 1))


def home_space(node: Node) -> Space:
    """Returns the space of a node's own elements, where parts of it are added."""
    return in_rows_of_last_axis(node.shape) if is_partial(node) else space_of(node)


def is_outer(node: Node) -> bool:
    """Whether a contraction sums outer products over pixels or rows."""
    if node.op is not Op.MATMUL:
        return node.op in (Op.CONV_WEIGHT_GRAD, Op.GRAM)
    transposed = node["transpose_a"] and not node["transpose_b"]
    matrices = all(len(x.shape) == 2 for x in node.inputs[:2])
    return transposed and matrices and batch_axis(node.shape) is None


def small(node: Node) -> bool:
    """Whether a value is a number or a vector, whatever the batch."""
    return len(node.shape) <= 1 and batch_axis(node.shape) is None


def in_rows(node: Node) -> bool:
    """Whether a node is computed from whole rows."""
    row = node.op is Op.REDUCE_SUM and reduction(node) is Reduction.ROW
    return row or node.op in (Op.ROW_MAX, Op.LOG_SUM_EXP, Op.SAMPLE)


def is_partial(node: Node) -> bool:
    """Whether tiles give partial sums that another kernel adds."""
    return node.op is Op.REDUCE_SUM and reduction(node) in (Reduction.ALL, Reduction.COLUMNS)
