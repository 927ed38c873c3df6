"""Vectors at the positions of samples, and their second moments: the sides of a block.

A product takes an input vector at every position of a sample and has a gradient there. They are the
rows of a value, the patches of an image, or rows of the identity, of which only the indices are
known. Grams and diagonals are one node each, or few: nothing of the size of all patches is made,
and no matrix where its diagonal will do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..graph import ops, scalar
from ..graph.ir import N, Node, Op, batch_axis, per_sample
from ..graph.scalar import BATCH, var
from .uses import Use

Pair = tuple[int, int]


def reciprocal(positions: float) -> scalar.Expr:
    """Returns 1/(N·T), which makes a sum over samples and positions a mean."""
    return scalar.reciprocal(BATCH * positions)


@dataclass(frozen=True)
class Vectors:
    """Vectors of D numbers at T positions of each sample, in groups where there are several.

    Attributes:
        value: their value, the features last; of patches the image; of rows of the identity, their
            indices.
        positions: T.
        groups: how many groups the features form.
        kernel: the size of the patches; None for rows.
        window: how patches move, attributes of the convolution.
        size: of rows of the identity, D; None for others.
    """

    value: Node
    positions: int
    groups: int = 1
    kernel: Pair | None = None
    window: Mapping[str, Any] | None = None
    size: int | None = None

    @property
    def _lead(self) -> tuple[int, ...]:
        """The leading axis of moments: the groups, where there are several."""
        return (self.groups,) if self.groups > 1 else ()

    @property
    def places(self) -> Pair:
        """How many places a patch has along each axis of the image."""
        assert self.window is not None and self.kernel is not None
        steps = self.window["stride"], self.window["padding"], self.window["dilation"]
        return ops.window_size(self.value.shape[-3:-1], self.kernel, *steps)

    def gram(self, homogeneous: bool, scale: scalar.Expr) -> Node:
        """Returns Σ v vᵀ times a number, with a 1 behind each vector where it is homogeneous."""
        if self.size is not None:
            return diagonal_matrix(self.squares(homogeneous, scale))
        if self.kernel is None:
            options = {"groups": self.groups, "homogeneous": homogeneous, "scale": scale}
            return ops.make(Op.GRAM, self.value, **options)
        assert self.window is not None
        options = {**self.window, "kernel": self.kernel, "homogeneous": homogeneous}
        return ops.make(Op.PATCH_GRAM, self.value, scale=scale, **options)

    def squares(self, homogeneous: bool, scale: scalar.Expr) -> Node:
        """Returns the diagonal of `gram`, D numbers; the matrix is not made."""
        squared = self
        if self.size is None:
            squared = replace(self, value=ops.map_(var(0) * var(0), self.value))
        total = squared.total()
        total = ops.reshape(total, (*self._lead, per_sample(total.shape) // self.groups))
        total = ops.scale(total, scale)
        if not homogeneous:
            return total
        one = ops.broadcast(ops.const(scale * (BATCH * float(self.positions))), (*self._lead, 1))
        return ops.make(Op.CONCAT, total, one, axis=len(self._lead))

    def total(self) -> Node:
        """Returns Σ v, D numbers or as many per group, in the order of the Gram."""
        if self.size is not None:
            ones = ops.broadcast(ops.const(1.0), (*self.value.shape, 1))
            counts = ops.make(Op.SCATTER_ROWS, ones, self.value, size=self.size)
            return ops.reshape(counts, (self.size,))
        if self.kernel is None:
            return ops.reduce_sum(self.value, range(ops.rank(self.value) - 1))
        return _patch_sums(self)

    def of_samples(self, outer: int, lead: int, mean: bool) -> Vectors:
        """Returns one vector for each sample, the sum or the mean over its positions.

        Args:
            outer: how many of its positions stand in front of the batch in one dimension with it.
            lead: how many axes of copies stand in front of all.
            mean: whether it is the mean.
        """
        if self.size is not None:
            return self  # whose diagonal is of single positions
        rows = self if self.kernel is None else _summed_patches(self)
        value = by_sample(rows.value, outer, lead)
        summed = ops.reduce_sum(value, (lead + 1,))
        if mean:
            summed = ops.scale(summed, 1.0 / self.positions)
        return Vectors(summed, 1, self.groups)


def by_sample(x: Node, outer: int, lead: int) -> Node:
    """Returns rows as copies×N×T×D, whichever axis the samples are on.

    Args:
        x: the rows, features last.
        outer: see `Vectors.of_samples`.
        lead: how many axes of copies there are.
    """
    axis = batch_axis(x.shape)
    assert axis is not None
    parts = (outer, N, x.shape[axis].times // outer)
    apart = ops.reshape(x, (*x.shape[:axis], *parts, *x.shape[axis + 1 :]))
    at = axis + 1
    others = [i for i in range(lead, ops.rank(apart)) if i != at]
    moved = ops.transpose(apart, [*range(lead), at, *others])
    positions = per_sample(x.shape[lead:-1])
    return ops.reshape(moved, (*x.shape[:lead], N, positions, x.shape[-1]))


def _patch_sums(patches: Vectors) -> Node:
    """Returns the sum of all patches, (group, channel of it)×taps reordered as the Gram's rows."""
    assert patches.window is not None
    image = patches.value
    shape = (*image.shape[:-3], *patches.places, patches.groups)
    ones = ops.broadcast(ops.const(1.0), shape)
    return ops.make(Op.CONV_WEIGHT_GRAD, ones, image, kernel=patches.kernel, **patches.window)


def _summed_patches(patches: Vectors) -> Vectors:
    """Returns the sum over positions of each image's patches, as rows of one position.

    It is a convolution with ones, a window of the size of the output whose steps and dilation have
    changed places.
    """
    assert patches.window is not None and patches.kernel is not None
    image, window = patches.value, patches.window
    channels, groups = image.shape[-1], patches.groups
    ones = ops.broadcast(ops.const(1.0), (channels, *patches.places, 1))
    sums = ops.make(
        Op.CONV, image, ones, stride=window["dilation"], dilation=window["stride"],
        padding=window["padding"], groups=channels,
    )  # fmt: skip
    lead = ops.rank(image) - 3
    for axis, taps in enumerate(patches.kernel, lead):
        if sums.shape[axis] > taps:
            sums = ops.make(Op.SLICE, sums, axis=axis, start=0, stop=taps)
    taps, each = math.prod(patches.kernel), channels // groups
    apart = ops.reshape(sums, (*image.shape[:lead], taps, groups, each))
    ordered = ops.transpose(apart, [*range(lead), lead + 1, lead, lead + 2])
    rows = ops.reshape(ordered, (*image.shape[:lead], taps * channels))
    return Vectors(rows, patches.positions, groups)


def diagonal_matrix(vector: Node) -> Node:
    """Returns the matrix diag(v): F zeros behind each element, F+1 to a row, read as rows of F."""
    (f,) = vector.shape
    padded = ops.make(Op.PAD, ops.reshape(vector, (f, 1)), axis=1, low=0, high=f)
    flat = ops.reshape(padded, (f * (f + 1),))
    return ops.reshape(ops.make(Op.SLICE, flat, axis=0, start=0, stop=f * f), (f, f))


# --- the vectors of a use -------------------------------------------------------------------------


def _window(node: Node) -> dict[str, Any]:
    """Returns the attributes of a convolution that say how its window moves."""
    return {k: v for k, v in node.attributes.items() if k != "size"}


def _turned(x: Node) -> Node:
    """Returns matrices transposed."""
    rank = ops.rank(x)
    return ops.transpose(x, (*range(rank - 2), rank - 1, rank - 2))


def inputs(use: Use) -> Vectors:
    """Returns the vectors that a use multiplies its parameter with."""
    node, position = use.taken
    if node.op is Op.GATHER_ROWS:
        index = node.inputs[1]
        size = use.taken.operand.shape[-2]
        return Vectors(index, per_sample(index.shape), size=size)
    if node.op is Op.MATMUL:
        x = node.inputs[1 - position]
        is_turned = node["transpose_a"] if position == 1 else not node["transpose_b"]
        x = _turned(x) if is_turned else x
        return Vectors(x, per_sample(x.shape[:-1]))
    x, w = node.inputs[:2]
    groups = node["groups"]
    if node.op is Op.CONV_INPUT_GRAD:
        return Vectors(x, per_sample(x.shape[:-1]), groups)
    return Vectors(x, per_sample(node.shape[:-1]), groups, w.shape[1:3], _window(node))


def gradients(use: Use, adjoint: Node) -> Vectors:
    """Returns the gradients of what a use gives, from the adjoint of its output."""
    node, position = use.taken
    if node.op is Op.CONV_INPUT_GRAD:
        x, w = node.inputs
        positions = per_sample(x.shape[:-1])
        return Vectors(adjoint, positions, node["groups"], w.shape[1:3], _window(node))
    if node.op is Op.MATMUL and position == 0:
        adjoint, positions = _turned(adjoint), per_sample((*node.shape[:-2], node.shape[-1]))
        return Vectors(adjoint, positions)
    groups = node["groups"] if node.op is Op.CONV else 1
    return Vectors(adjoint, per_sample(node.shape[:-1]), groups)
