"""The losses: per-sample values, summed over a sample's outputs, and the labels they stand for.

`drawn` takes labels from the model's own predictive distribution, so that E[z̄ z̄ᵀ] = E[B], by random
numbers that are given: a run repeats exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..graph import ops, scalar
from ..graph.errors import NewtritonError, ShapeError
from ..graph.ir import N, Node, Op
from ..graph.scalar import var
from .loss import Loss, log_likelihoods


def _row(x: Node, like: Node) -> Node:
    """One number per row, copied along the columns of `like`."""
    return ops.broadcast(x, like.shape, (ops.rank(like) - 1,))


def _column(x: Node, k: int) -> Node:
    """Column k of N rows."""
    return ops.reshape(ops.make(Op.SLICE, x, axis=1, start=k, stop=k + 1), (N,))


@dataclass(frozen=True, repr=False)
class CrossEntropyLoss(Loss):
    """ℓ = log Σ_k e^{z_k} − z_y; labels int64 (N,), in 0…K−1."""

    convex = True
    distribution = True

    def _shifted(self, z: Node) -> tuple[Node, Node]:
        """Logits without the maximum of their row, so that no exponential overflows; Σ exp."""
        shifted = ops.map_(var(0) - var(1), z, _row(ops.make(Op.ROW_MAX, z), z))
        exponentials = ops.map_(scalar.exp(var(0)), shifted)
        return shifted, ops.reduce_sum(exponentials, (ops.rank(z) - 1,))

    def losses(self, z: Node, y: Node) -> Node:
        """N losses."""
        shifted, total = self._shifted(z)
        columns = (ops.rank(z) - 1,)
        hit = ops.make(Op.ONE_HOT, y, classes=z.shape[-1])
        chosen = ops.reduce_sum(ops.multiply(shifted, hit), columns)
        return ops.map_(scalar.log(var(0)) - var(1), total, chosen)

    def drawn(self, z: Node) -> tuple[Node, Node]:
        """Categorical labels by inverse CDF from N uniforms."""
        u = ops.input_("noise", (N,))
        return ops.make(Op.SAMPLE, z, u), u

    def square_root(self, z: Node, y: Node, units: Node) -> Node:
        """√p_k (e_k − p): the columns of a root of B = diag(p) − p pᵀ."""
        shifted, total = self._shifted(z)
        p = ops.map_(scalar.exp(var(0)) / var(1), shifted, _row(total, z))
        p = ops.broadcast(p, units.shape, (0,))
        p_k = ops.reduce_sum(ops.multiply(units, p), (2,))
        expr = scalar.sqrt(var(2)) * (var(0) - var(1))
        return ops.map_(expr, units, p, _row(p_k, units))


@dataclass(frozen=True, repr=False)
class MSELoss(Loss):
    """ℓ = Σ_k (z_k − y_k)²: summed over outputs, without ½; labels float (N, K)."""

    convex = True
    distribution = True
    separable = True
    noise = "normal"

    def labels(self, z: Node) -> Node:
        """Targets (N, K)."""
        return ops.input_("y", z.shape)

    def losses(self, z: Node, y: Node) -> Node:
        """N losses."""
        error = ops.map_(var(0) - var(1), z, y)
        return ops.reduce_sum(ops.map_(var(0) * var(0), error), (1,))

    def drawn(self, z: Node) -> tuple[Node, Node]:
        """Y = z + ε/√2, ε standard normal, (N, K)."""
        noise = ops.input_("noise", z.shape)
        return ops.map_(var(0) + var(1) * math.sqrt(0.5), z, noise), noise

    def square_root(self, z: Node, y: Node, units: Node) -> Node:
        """√2 e_k: B = 2I."""
        return ops.scale(units, math.sqrt(2.0))


@dataclass(frozen=True, repr=False)
class BCEWithLogitsLoss(Loss):
    """ℓ = Σ_k softplus(z_k) − z_k y_k; labels float (N, K) in [0, 1]."""

    convex = True
    distribution = True
    separable = True
    span = (0.0, 1.0)

    def labels(self, z: Node) -> Node:
        """Targets (N, K)."""
        return ops.input_("y", z.shape)

    def losses(self, z: Node, y: Node) -> Node:
        """N losses."""
        return ops.reduce_sum(ops.map_(scalar.softplus(var(0)) - var(0) * var(1), z, y), (1,))

    def drawn(self, z: Node) -> tuple[Node, Node]:
        """Y = 1 where u < σ(z), (N, K) uniforms u."""
        u = ops.input_("noise", z.shape)
        return ops.map_(scalar.where(scalar.sigmoid(var(0)) - var(1), 1.0, 0.0), z, u), u

    def square_root(self, z: Node, y: Node, units: Node) -> Node:
        """√(σ(1−σ)) e_k: B is diagonal; 1 − σ(z) is σ(−z), without cancellation."""
        slope = scalar.sigmoid(var(1)) * scalar.sigmoid(-var(1))
        return ops.map_(scalar.sqrt(slope) * var(0), units, ops.broadcast(z, units.shape, (0,)))


@dataclass(frozen=True, repr=False)
class SigmoidMarginLoss(Loss):
    """ℓ = 1 / (1 + e^{δ(ŷ_y − ε)}), ŷ = softmax(z); labels int64 (N,), in 0…K−1.

    Bounded, so that no outlier weighs more than another; B is indefinite and there is no
    distribution behind it (Chen, Chou & Chang 2018, eq. 14).

    Args:
        delta: δ.
        epsilon: ε.
        root: "clip" leaves B's negative eigenvalues out of Gauss–Newton curvature; None refuses it.
    """

    delta: float = 5.0
    epsilon: float = 0.2
    root: str | None = None

    def __post_init__(self) -> None:
        for name in ("delta", "epsilon"):
            value = getattr(self, name)
            if not (isinstance(value, (int, float)) and math.isfinite(value)):
                raise NewtritonError(f"{name} is {value!r}: give a number")

    def losses(self, z: Node, y: Node) -> Node:
        """N losses."""
        expr = scalar.sigmoid(self.delta * (self.epsilon - scalar.exp(-var(0))))
        return ops.map_(expr, CrossEntropyLoss().losses(z, y))


@dataclass(frozen=True, repr=False)
class MixtureLoss(Loss):
    """ℓ = −log p(y|z), p = σ(z₁) σ(±z₂) + σ(−z₁) σ(±z₃), + for y = 1; labels int64 (N,), 0 or 1.

    A mixture of two binary classifiers, three outputs; B is indefinite and differs from the Fisher
    matrix (Botev, Ritter & Barber 2017, eq. 27).

    Args:
        root: what stands for B in Gauss–Newton curvature: "fisher", E[B] over y ~ p, of rank one;
            "clip", B without its negative eigenvalues; None refuses it.

    Raises:
        ShapeError: the network has another number of outputs.
    """

    root: str | None = None
    distribution = True

    def classes(self, z: Node) -> int:
        """Two."""
        return 2

    def losses(self, z: Node, y: Node) -> Node:
        """N losses; the larger of both terms is taken out of the logarithm."""
        if z.shape[-1] != 3:
            raise ShapeError(
                f"{self!r} takes 3 outputs, the network has {z.shape[-1]}: end it in Linear(3)"
            )
        hit = ops.make(Op.ONE_HOT, y, classes=2)
        columns = [_column(z, k) for k in range(3)] + [_column(hit, 1)]
        sign = 2.0 * var(3) - 1.0
        first = scalar.softplus(-var(0)) + scalar.softplus(-1.0 * sign * var(1))
        second = scalar.softplus(var(0)) + scalar.softplus(-1.0 * sign * var(2))
        gap = first - second
        near = second - scalar.softplus(-gap)
        return ops.map_(scalar.where(gap, near, first - scalar.softplus(gap)), *columns)

    def scores(self, z: Node) -> Node:
        """N×2, the logarithms of p(y|z)."""
        return log_likelihoods(self, z)
