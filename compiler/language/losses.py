"""The losses: per-sample values, summed over a sample's outputs, and the labels they stand for.

`drawn` takes labels from the model's own predictive distribution, so that E[z̄ z̄ᵀ] = E[B], by random
numbers that are given: a run repeats exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..graph import ops, scalar
from ..graph.errors import ShapeError
from ..graph.ir import N, Node, Op
from ..graph.options import check_number
from ..graph.scalar import var
from .loss import Loss, log_likelihoods


def _row(x: Node, like: Node) -> Node:
    """Returns x, one number per row, copied along the columns of `like`."""
    return ops.broadcast(x, like.shape, (ops.rank(like) - 1,))


def _column(x: Node, k: int) -> Node:
    """Returns column k of a matrix of N rows, as N numbers."""
    return ops.reshape(ops.make(Op.SLICE, x, axis=1, start=k, stop=k + 1), (N,))


@dataclass(frozen=True, repr=False)
class CrossEntropyLoss(Loss):
    """The cross-entropy ℓ = log Σ_k e^{z_k} − z_y of classes, in nats.

    Outputs z are logits (N, K), labels int64 classes (N,) in 0…K−1. B = diag(p) − p pᵀ with
    p = softmax(z).

    Examples:
        >>> import newtriton as nt
        >>> import torch
        >>> model = nt.compile(nt.Linear(3), input_shape=(4,), loss=nt.CrossEntropyLoss())
        >>> model.params.zero_()[0].item()
        0.0
        >>> round(model.loss(torch.zeros(2, 4), torch.tensor([0, 2])).item(), 4)  # log 3
        1.0986
    """

    convex = True
    distribution = True
    lowest = 0.0

    def _shifted(self, z: Node) -> tuple[Node, Node]:
        """Returns the logits without the maximum of their row, and the rows' sums of exponentials.

        Thus no exponential overflows.
        """
        shifted = ops.map_(var(0) - var(1), z, _row(ops.row_max(z, stabiliser=True), z))
        exponentials = ops.map_(scalar.exp(var(0)), shifted)
        return shifted, ops.reduce_sum(exponentials, (ops.rank(z) - 1,))

    def losses(self, z: Node, y: Node) -> Node:
        """Returns the N losses."""
        shifted, total = self._shifted(z)
        columns = (ops.rank(z) - 1,)
        hit = ops.make(Op.ONE_HOT, y, classes=z.shape[-1])
        chosen = ops.reduce_sum(ops.map_(scalar.branch(var(1), var(0), 0.0), shifted, hit), columns)
        return ops.map_(scalar.log(var(0)) - var(1), total, chosen)

    def drawn(self, z: Node) -> tuple[Node, Node]:
        """Returns classes drawn from softmax(z) by its inverse CDF, and the N uniforms."""
        u = ops.input_("noise", (N,))
        return ops.make(Op.SAMPLE, z, u), u

    def square_root(self, z: Node, y: Node, units: Node) -> Node:
        """Returns √p_k (e_k − p), the columns of a root of B = diag(p) − p pᵀ."""
        shifted, total = self._shifted(z)
        p = ops.map_(scalar.exp(var(0)) / var(1), shifted, _row(total, z))
        p = ops.broadcast(p, units.shape, (0,))
        p_k = ops.reduce_sum(ops.multiply(units, p), (2,))
        expr = scalar.sqrt(var(2)) * (var(0) - var(1))
        return ops.map_(expr, units, p, _row(p_k, units))


@dataclass(frozen=True, repr=False)
class MSELoss(Loss):
    """The squared error ℓ = Σ_k (z_k − y_k)², summed over a sample's outputs, without ½.

    Labels are float (N, K), or int64 classes (N,) of K ≥ 2 outputs, which stand for unit vectors.
    B = 2I.

    Examples:
        >>> import newtriton as nt
        >>> import torch
        >>> model = nt.compile(nt.Linear(2), input_shape=(4,), loss=nt.MSELoss())
        >>> _ = model.params.zero_()
        >>> model.loss(torch.zeros(3, 4), torch.ones(3, 2)).item()
        2.0
    """

    convex = True
    distribution = True
    lowest = 0.0
    separable = True
    noise = "normal"

    def labels(self, z: Node) -> Node:
        """Returns the input node of the targets (N, K)."""
        return ops.input_("y", z.shape)

    def losses(self, z: Node, y: Node) -> Node:
        """Returns the N losses."""
        error = ops.map_(var(0) - var(1), z, y)
        return ops.reduce_sum(ops.map_(var(0) * var(0), error), (1,))

    def drawn(self, z: Node) -> tuple[Node, Node]:
        """Returns y = z + ε/√2, and the standard normal numbers ε, (N, K)."""
        noise = ops.input_("noise", z.shape)
        return ops.map_(var(0) + var(1) * math.sqrt(0.5), z, noise), noise

    def square_root(self, z: Node, y: Node, units: Node) -> Node:
        """Returns √2 e_k, the columns of a root of B = 2I."""
        return ops.scale(units, math.sqrt(2.0))


@dataclass(frozen=True, repr=False)
class BCEWithLogitsLoss(Loss):
    """The binary cross-entropy ℓ = Σ_k softplus(z_k) − z_k y_k, summed over a sample's outputs.

    Outputs z are logits; labels are float (N, K) in [0, 1], or int64 classes (N,) of K ≥ 2 outputs,
    which stand for unit vectors. B = diag(σ(z)(1 − σ(z))).

    Examples:
        >>> import newtriton as nt
        >>> import torch
        >>> model = nt.compile(nt.Linear(2), input_shape=(4,), loss=nt.BCEWithLogitsLoss())
        >>> _ = model.params.zero_()
        >>> round(model.loss(torch.zeros(3, 4), torch.ones(3, 2)).item(), 4)  # 2 log 2
        1.3863
    """

    convex = True
    distribution = True
    lowest = 0.0
    separable = True
    span = (0.0, 1.0)

    def labels(self, z: Node) -> Node:
        """Returns the input node of the targets (N, K)."""
        return ops.input_("y", z.shape)

    def losses(self, z: Node, y: Node) -> Node:
        """Returns the N losses."""
        return ops.reduce_sum(ops.map_(scalar.softplus(var(0)) - var(0) * var(1), z, y), (1,))

    def drawn(self, z: Node) -> tuple[Node, Node]:
        """Returns y = 1 where u < σ(z) and 0 elsewhere, and the uniforms u, (N, K)."""
        u = ops.input_("noise", z.shape)
        return ops.map_(scalar.where(scalar.sigmoid(var(0)) - var(1), 1.0, 0.0), z, u), u

    def square_root(self, z: Node, y: Node, units: Node) -> Node:
        """Returns √(σ(1−σ)) e_k, the columns of a root of the diagonal B.

        1 − σ(z) is computed as σ(−z), without cancellation.
        """
        slope = scalar.sigmoid(var(1)) * scalar.sigmoid(-var(1))
        return ops.map_(scalar.sqrt(slope) * var(0), units, ops.broadcast(z, units.shape, (0,)))


@dataclass(frozen=True, repr=False)
class SigmoidMarginLoss(Loss):
    """The margin loss ℓ = 1 / (1 + e^{δ(ŷ_y − ε)}) of classes, where ŷ = softmax(z).

    Outputs are logits (N, K), labels int64 classes (N,) in 0…K−1. ℓ is bounded, so that no outlier
    weighs more than another; B is indefinite and there is no distribution behind it (Chen, Chou &
    Chang 2018, eq. 14).

    Args:
        delta: the number δ.
        epsilon: ε.
        root: "clip" leaves B's negative eigenvalues out of Gauss–Newton curvature; None refuses
            such curvature.

    Raises:
        NewtritonError: δ or ε is not a finite number.

    Examples:
        >>> import newtriton as nt
        >>> nt.SigmoidMarginLoss(root="clip")
        SigmoidMarginLoss(root='clip')
    """

    delta: float = 5.0
    epsilon: float = 0.2
    root: str | None = None
    lowest = 0.0

    def __post_init__(self) -> None:
        for name in ("delta", "epsilon"):
            check_number(name, getattr(self, name))

    def losses(self, z: Node, y: Node) -> Node:
        """Returns the N losses."""
        expr = scalar.sigmoid(self.delta * (self.epsilon - scalar.exp(-var(0))))
        return ops.map_(expr, CrossEntropyLoss().losses(z, y))


@dataclass(frozen=True, repr=False)
class MixtureLoss(Loss):
    """The likelihood ℓ = −log p(y|z) of a mixture of two binary classifiers.

    p(y|z) = σ(z₁) σ(±z₂) + σ(−z₁) σ(±z₃), with + for y = 1 and − for y = 0. The network has three
    outputs, labels are int64 (N,), 0 or 1. B is indefinite and differs from the Fisher matrix
    (Botev, Ritter & Barber 2017, eq. 27).

    Args:
        root: what stands for B in Gauss–Newton curvature: "fisher", E[B] over y ~ p, of rank one;
            "clip", B without its negative eigenvalues; None refuses such curvature.

    Raises:
        ShapeError: the network has another number of outputs; raised when it is compiled.

    Examples:
        >>> import newtriton as nt
        >>> import torch
        >>> model = nt.compile(nt.Linear(3), input_shape=(4,), loss=nt.MixtureLoss("fisher"))
        >>> _ = model.params.zero_()
        >>> round(model.loss(torch.zeros(2, 4), torch.tensor([0, 1])).item(), 4)  # log 2
        0.6931
    """

    root: str | None = None
    distribution = True
    lowest = 0.0

    def classes(self, z: Node) -> int:
        """Returns 2, although there are three outputs."""
        return 2

    def losses(self, z: Node, y: Node) -> Node:
        """Returns the N losses; the larger of both terms is taken out of the logarithm."""
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
        """Returns the logarithms of p(y|z), N×2."""
        return log_likelihoods(self, z)
