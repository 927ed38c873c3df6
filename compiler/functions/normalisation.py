"""Norms: (x − mean)/√(variance + eps)·γ + β, by the axes that the mean goes over.

γ and β are per channel, or per element of the trailing axes that a layer norm goes over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..graph import ops, scalar
from ..graph.ir import Node
from ..graph.scalar import Expr, var
from .shapes import copied, count, last


@dataclass(frozen=True)
class Moments:
    """The moments of a value over some of its axes.

    Attributes:
        x: the value.
        axes: the axes.
        mean: the mean over them.
        centred: x − mean, of the shape of x.
        squares: the sum of the squares of that.
        count: over how many numbers each goes.
    """

    x: Node
    axes: tuple[int, ...]
    mean: Node
    centred: Node
    squares: Node
    count: Expr | float

    @property
    def variance(self) -> Node:
        """The mean of the squares."""
        return ops.scale(self.squares, scalar.reciprocal(self.count))

    @property
    def unbiased(self) -> Node:
        """The sum of the squares by one less than their number."""
        return ops.scale(self.squares, scalar.reciprocal(self.count - 1.0))


def moments(x: Node, axes: Sequence[int]) -> Moments:
    """Returns mean and variance of x over `axes`."""
    axes = tuple(axes)
    number = count(x.shape[i] for i in axes)
    mean = ops.scale(ops.reduce_sum(x, axes), scalar.reciprocal(number))
    centred = shifted(x, mean, axes)
    squares = ops.reduce_sum(ops.map_(var(0) * var(0), centred), axes)
    return Moments(x, axes, mean, centred, squares, number)


def shifted(x: Node, mean: Node, axes: Sequence[int]) -> Node:
    """Returns x − mean, where the mean does not have those axes."""
    return ops.map_(var(0) - var(1), x, copied(mean, x, axes))


def scaled(
    centred: Node,
    variance: Node,
    axes: Sequence[int],
    eps: float | Node,
    weight: Node | None = None,
    bias: Node | None = None,
) -> Node:
    """Returns centred/√(variance + eps)·weight + bias.

    Args:
        centred: the value without its mean.
        variance: its variance over `axes`.
        axes: the axes that the variance does not have.
        eps: what is added to the variance, a number or a scalar.
        weight: γ over the trailing axes; 1 unless given.
        bias: β over the trailing axes; 0 unless given.
    """
    if isinstance(eps, Node):
        root = scalar.sqrt(var(0) + var(1))
        inverse = ops.map_(scalar.reciprocal(root), variance, ops.broadcast(eps, variance.shape))
    else:
        inverse = ops.map_(scalar.reciprocal(scalar.sqrt(var(0) + float(eps))), variance)
    return affine(centred, copied(inverse, centred, axes), weight, bias)


def affine(x: Node, factor: Node, weight: Node | None, bias: Node | None) -> Node:
    """Returns x·factor·weight + bias, with weight and bias over the trailing axes."""
    given = [last(p, x) for p in (weight, bias) if p is not None]
    expr = var(0) * var(1)
    expr = expr if weight is None else expr * var(2)
    expr = expr if bias is None else expr + var(1 + len(given))
    return ops.map_(expr, x, factor, *given)


def layer_norm(
    x: Node, axes: int, eps: float, weight: Node | None = None, bias: Node | None = None
) -> Node:
    """Returns the layer norm over the last `axes` axes (Ba, Kiros & Hinton 2016)."""
    rank = ops.rank(x)
    found = moments(x, range(rank - axes, rank))
    return scaled(found.centred, found.variance, found.axes, eps, weight, bias)


def rms_norm(x: Node, axes: int, eps: float | Node, weight: Node | None = None) -> Node:
    """Returns x/√(mean of x² + eps)·weight over the last `axes` axes (Zhang & Sennrich 2019)."""
    rank = ops.rank(x)
    over = tuple(range(rank - axes, rank))
    squares = ops.reduce_sum(ops.map_(var(0) * var(0), x), over)
    mean = ops.scale(squares, scalar.reciprocal(count(x.shape[i] for i in over)))
    return scaled(x, mean, over, eps, weight)


def group_norm(
    x: Node, groups: int, eps: float, weight: Node | None = None, bias: Node | None = None
) -> Node:
    """Returns the norm of each group of channels of a sample (Wu & He 2018).

    Args:
        x: the value, (N, *spatial, C).
        groups: into how many groups the channels divide.
        eps: what is added to the variance.
        weight: γ per channel.
        bias: β per channel.
    """
    *lead, c = x.shape
    grouped = ops.reshape(x, (*lead, groups, c // groups))
    rank = ops.rank(grouped)
    found = moments(grouped, (*range(1, rank - 2), rank - 1))
    normal = scaled(found.centred, found.variance, found.axes, eps)
    return weighted(ops.reshape(normal, x.shape), weight, bias)


def instance_norm(
    x: Node, eps: float, weight: Node | None = None, bias: Node | None = None
) -> Node:
    """Returns the norm of each channel of a sample, x of shape (N, *spatial, C)."""
    found = moments(x, range(1, ops.rank(x) - 1))
    return scaled(found.centred, found.variance, found.axes, eps, weight, bias)


def weighted(x: Node, weight: Node | None, bias: Node | None) -> Node:
    """Returns x·weight + bias, with both over the trailing axes."""
    if weight is None:
        return x if bias is None else ops.map_(var(0) + var(1), x, last(bias, x))
    return affine(x, last(weight, x), None, bias)
