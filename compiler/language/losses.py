"""The losses: per-sample values, summed over a sample's outputs, and the labels they stand for.

`drawn` takes labels from the model's own predictive distribution, so that E[z̄ z̄ᵀ] = E[B], by random
numbers that are given: a run repeats exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from ..graph import ops, scalar
from ..graph.errors import ShapeError, quoted
from ..graph.ir import N, Node, Op
from ..graph.options import check_integer, check_number
from ..graph.scalar import var
from .constants import Numbers, check_numbers, constant
from .loss import Loss, log_likelihoods

IGNORED = -100  # the label that PyTorch ignores


def _row(x: Node, like: Node) -> Node:
    """Returns x, one number per row, copied along the columns of `like`."""
    return ops.broadcast(x, like.shape, (ops.rank(like) - 1,))


def _below_maximum(z: Node) -> Node:
    """Returns logits less the largest of their row, so that losses near 0 do not cancel."""
    return ops.map_(var(0) - var(1), z, _row(ops.row_max(z, stabiliser=True), z))


def _column(x: Node, k: int) -> Node:
    """Returns column k of a matrix of N rows, as N numbers."""
    return ops.reshape(ops.make(Op.SLICE, x, axis=1, start=k, stop=k + 1), x.shape[:1])


def _counted(y: Node) -> Node:
    """Returns 1 for labels that count and 0 for others, which are below 0."""
    return ops.map_(scalar.branch(var(0) + 0.5, 1.0, 0.0), y)


def _weighted(root: Node, weights: Node) -> Node:
    """Returns √c times each copy of a root."""
    expr = var(0) * scalar.sqrt(var(1))
    return ops.map_(expr, root, ops.broadcast(weights, root.shape, (0,)))


@dataclass(frozen=True, repr=False)
class CrossEntropyLoss(Loss):
    """The cross-entropy ℓ = −Σ_k t_k w_k log p_k of classes, p = softmax(z), in nats.

    Outputs z are logits (N, K) or (N, …, K), labels y int64 classes (N,) or (N, …) in 0…K−1. The
    target t is (1 − ε) e_y + ε/K; without options ℓ = log Σ_k e^{z_k} − z_y. h divides the sum over
    all labels that count by the sum of their w_y, as PyTorch's does. B = c (diag(p) − p pᵀ) with
    c = Σ_k t_k w_k; labels are drawn from p.

    Args:
        weight: the weights w_k ≥ 0 of the K classes, a tensor or a sequence; None for ones.
        ignore_index: the label that does not count. None is PyTorch's −100, but for (N, K) outputs
            without any option: there a label of −100 is an error, so that h is a mean over N.
        label_smoothing: ε, 0 ≤ ε ≤ 1.

    Raises:
        NewtritonError: an option is out of its range; when it is compiled, there are not K weights.

    Examples:
        >>> import newtriton as nt
        >>> import torch
        >>> model = nt.compile(nt.Linear(3), input_shape=(4,), loss=nt.CrossEntropyLoss())
        >>> model.params.zero_()[0].item()
        0.0
        >>> round(model.loss(torch.zeros(2, 4), torch.tensor([0, 2])).item(), 4)  # log 3
        1.0986
        >>> nt.CrossEntropyLoss(ignore_index=0, label_smoothing=0.1)
        CrossEntropyLoss(ignore_index=0, label_smoothing=0.1)
    """

    weight: Numbers | None = None
    ignore_index: int | None = field(default=None, kw_only=True)
    label_smoothing: float = field(default=0.0, kw_only=True)
    convex = True
    distribution = True
    lowest = 0.0

    def __post_init__(self) -> None:
        if self.weight is not None:
            object.__setattr__(self, "weight", check_numbers("weight", self.weight))
        ignored, smoothing = self.ignore_index, self.label_smoothing
        if ignored is not None:
            object.__setattr__(self, "ignore_index", check_integer("ignore_index", ignored))
        smoothing = check_number("label_smoothing", smoothing, 0.0, 1.0)
        object.__setattr__(self, "label_smoothing", smoothing)

    @property
    def plain(self) -> Loss:
        """The loss without weights and smoothing."""
        if self.weight is None and not self.label_smoothing:
            return self
        return replace(self, weight=None, label_smoothing=0.0)

    def ignored(self, z: Node) -> int | None:
        """Returns the label that does not count; None where all have to."""
        if self.ignore_index is not None:
            return self.ignore_index
        optional = self.weight is not None or self.label_smoothing
        return IGNORED if optional or z.shape[0] is not N else None

    def _class_weights(self, z: Node) -> Node | None:
        """Returns the weights of the classes in each row; None for ones."""
        if self.weight is None:
            return None
        if len(self.weight) != z.shape[-1]:
            raise ShapeError(
                f"weight has {len(self.weight)} numbers, the network {z.shape[-1]} outputs: give "
                "one for each class"
            )
        return ops.broadcast(constant(self.weight), z.shape)

    def _targets(self, z: Node, y: Node) -> Node:
        """Returns t_k w_k, zeros where a label does not count: its one-hot row is zero."""
        weight, smoothing = self._class_weights(z), self.label_smoothing
        targets = ops.make(Op.ONE_HOT, y, classes=z.shape[-1])
        if smoothing:
            smooth = (1.0 - smoothing) * var(0) + smoothing / z.shape[-1] * var(1)
            targets = ops.map_(smooth, targets, _row(_counted(y), z))
        return targets if weight is None else ops.multiply(targets, weight)

    def _mass(self, z: Node, y: Node) -> Node:
        """Returns c = Σ_k t_k w_k, N numbers."""
        return _counted(y) if self.weight is None else ops.reduce_sum(self._targets(z, y), (1,))

    def counts(self, z: Node, y: Node) -> Node | None:
        """Returns the weights w_y of the labels, 0 where they do not count; None where all do."""
        if self.ignored(z) is None:
            return None
        weight = self._class_weights(z)
        if weight is None:
            return _counted(y)
        hit = ops.make(Op.ONE_HOT, y, classes=z.shape[-1])
        return ops.reduce_sum(ops.multiply(hit, weight), (1,))

    def weights(self, z: Node, y: Node) -> Node | None:
        """Returns c in all columns; None for ones."""
        return None if self.ignored(z) is None else _row(self._mass(z, y), z)

    def losses(self, z: Node, y: Node) -> Node:
        """Returns the N losses."""
        shifted, targets = _below_maximum(z), self._targets(z, y)
        total, counted = ops.log_sum_exp(shifted), self.ignored(z) is not None
        hit = scalar.branch(var(1), var(0) * var(1) if counted else var(0), 0.0)
        chosen = ops.reduce_sum(ops.map_(hit, shifted, targets), (ops.rank(z) - 1,))
        if not counted:
            return ops.map_(var(0) - var(1), total, chosen)
        expr = scalar.branch(var(2), var(2) * var(0) - var(1), 0.0)
        return ops.map_(expr, total, chosen, self._mass(z, y))

    def drawn(self, z: Node) -> tuple[Node, Node]:
        """Returns classes drawn from softmax(z) by its inverse CDF, and the N uniforms."""
        u = ops.input_("noise", z.shape[:1])
        return ops.make(Op.SAMPLE, z, u), u

    def square_root(self, z: Node, y: Node, units: Node) -> Node:
        """Returns √(c p_k) (e_k − p), the columns of a root of B = c (diag(p) − p pᵀ)."""
        p = ops.broadcast(ops.softmax(_below_maximum(z)), units.shape, (0,))
        p_k = ops.reduce_sum(ops.multiply(units, p), (2,))
        expr = scalar.sqrt(var(2)) * (var(0) - var(1))
        root, weights = ops.map_(expr, units, p, _row(p_k, units)), self.weights(z, y)
        return root if weights is None else _weighted(root, weights)


@dataclass(frozen=True, repr=False)
class MSELoss(Loss):
    """The squared error ℓ = Σ_k (z_k − y_k)², summed over a sample's outputs, without ½.

    Outputs are of any shape (N, …), and so are the labels, floats. Or these are int64 (N, …), one
    for each row of outputs: classes of K ≥ 2 outputs, which stand for unit vectors, or numbers of
    one output. B = 2I.

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
    """The binary cross-entropy ℓ = Σ_k p_k y_k softplus(−z_k) + (1 − y_k) softplus(z_k).

    It is summed over a sample's outputs, logits of any shape (N, …). Labels are floats in [0, 1] of
    the same shape. Or they are int64 (N, …), one for each row of outputs: classes of K ≥ 2 outputs,
    which stand for unit vectors, or 0 and 1 of one output. B is diagonal, (1 + (p − 1) y) σ(1 − σ)
    with σ = σ(z); labels are drawn from σ.

    Args:
        pos_weight: the weight p of positive labels: a number, or one for each of the last axis of
            the outputs, a tensor or a sequence; None for 1.

    Raises:
        NewtritonError: a weight is no number ≥ 0; when it is compiled, there are not as many as
            outputs on the last axis.

    Examples:
        >>> import newtriton as nt
        >>> import torch
        >>> model = nt.compile(nt.Linear(2), input_shape=(4,), loss=nt.BCEWithLogitsLoss())
        >>> _ = model.params.zero_()
        >>> round(model.loss(torch.zeros(3, 4), torch.ones(3, 2)).item(), 4)  # 2 log 2
        1.3863
        >>> nt.BCEWithLogitsLoss(pos_weight=3.0)
        BCEWithLogitsLoss(pos_weight=(3.0,))
    """

    pos_weight: Numbers | None = field(default=None, kw_only=True)
    convex = True
    distribution = True
    lowest = 0.0
    separable = True
    span = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.pos_weight is not None:
            given = check_numbers("pos_weight", self.pos_weight)
            object.__setattr__(self, "pos_weight", given)

    @property
    def plain(self) -> Loss:
        """The loss without weights of positive labels."""
        return self if self.pos_weight is None else replace(self, pos_weight=None)

    def labels(self, z: Node) -> Node:
        """Returns the input node of the targets (N, K)."""
        return ops.input_("y", z.shape)

    def weights(self, z: Node, y: Node) -> Node | None:
        """Returns 1 + (p − 1) y; None for ones."""
        if self.pos_weight is None:
            return None
        repeats, rest = divmod(z.shape[-1], len(self.pos_weight))
        if rest:
            raise ShapeError(
                f"pos_weight has {len(self.pos_weight)} numbers, the network {z.shape[-1]} "
                "outputs: give one number, or one for each output"
            )
        weight = ops.broadcast(constant(self.pos_weight * repeats), z.shape)
        return ops.map_(1.0 + (var(1) - 1.0) * var(0), y, weight)

    def losses(self, z: Node, y: Node) -> Node:
        """Returns the N losses."""
        weights = self.weights(z, y)
        if weights is None:
            each = ops.map_(scalar.softplus(var(0)) - var(0) * var(1), z, y)
        else:  # softplus(−z) without cancellation at large z, where its weight is
            expr = var(2) * scalar.softplus(-var(0)) + (1.0 - var(1)) * var(0)
            each = ops.map_(expr, z, y, weights)
        return ops.reduce_sum(each, (1,))

    def scores(self, z: Node) -> Node:
        """Returns the scores of the classes; one output is positive where σ(z) > ½."""
        return Loss.scores(self.plain, z)

    def drawn(self, z: Node) -> tuple[Node, Node]:
        """Returns y = 1 where u < σ(z) and 0 elsewhere, and the uniforms u, (N, K)."""
        u = ops.input_("noise", z.shape)
        return ops.map_(scalar.where(scalar.sigmoid(var(0)) - var(1), 1.0, 0.0), z, u), u

    def square_root(self, z: Node, y: Node, units: Node) -> Node:
        """Returns √(c σ(1−σ)) e_k, the columns of a root of the diagonal B.

        1 − σ(z) is computed as σ(−z), without cancellation.
        """
        slope = scalar.sigmoid(var(1)) * scalar.sigmoid(-var(1))
        z_k = ops.broadcast(z, units.shape, (0,))
        root, weights = ops.map_(scalar.sqrt(slope) * var(0), units, z_k), self.weights(z, y)
        return root if weights is None else _weighted(root, weights)


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
                f"{quoted(self)} takes 3 outputs, the network has {z.shape[-1]}: "
                "end it in Linear(3)"
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
