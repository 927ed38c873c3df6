"""The losses: per-sample values, summed over a sample's outputs, and the labels they stand for.

`draw` samples labels from the model's own predictive distribution, so that E[z̄ z̄ᵀ] = B, from random
numbers that are given: a run repeats exactly. `root` gives the columns of a square root, S Sᵀ = B,
from the unit vectors that are given: its column k is the copy k of a K×N×K value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from . import ops, scalar
from .ir import N, Node, Op
from .scalar import var


def _row(x: Node, like: Node) -> Node:
    """One number per row, copied along the columns of `like`."""
    return ops.broadcast(x, like.shape, (ops.rank(like) - 1,))


class _Loss:
    """Value semantics and a name; subclasses say the rest.

    `noise` names the random numbers that `draw` takes; `span` bounds float labels; `separable`
    losses are sums over the outputs.
    """

    noise: ClassVar[str] = "uniform"
    span: ClassVar[tuple[float, float] | None] = None
    separable: ClassVar[bool] = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


@dataclass(frozen=True, repr=False)
class CrossEntropyLoss(_Loss):
    """ℓ = log Σ_k e^{z_k} − z_y; labels int64 (N,), in 0…K−1."""

    def labels(self, z: Node) -> Node:
        """Class indices (N,)."""
        return ops.input_("y", (N,), "int")

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

    def draw(self, z: Node) -> tuple[Node, Node]:
        """Categorical labels by inverse CDF from N uniforms."""
        u = ops.input_("noise", (N,))
        return ops.make(Op.SAMPLE, z, u), u

    def root(self, z: Node, units: Node) -> Node:
        """√p_k (e_k − p): the columns of a root of B = diag(p) − p pᵀ."""
        shifted, total = self._shifted(z)
        p = ops.map_(scalar.exp(var(0)) / var(1), shifted, _row(total, z))
        p = ops.broadcast(p, units.shape, (0,))
        p_k = ops.reduce_sum(ops.multiply(units, p), (2,))
        expr = scalar.sqrt(var(2)) * (var(0) - var(1))
        return ops.map_(expr, units, p, _row(p_k, units))


@dataclass(frozen=True, repr=False)
class MSELoss(_Loss):
    """ℓ = Σ_k (z_k − y_k)²: summed over outputs, without ½; labels float (N, K)."""

    noise: ClassVar[str] = "normal"
    separable: ClassVar[bool] = True

    def labels(self, z: Node) -> Node:
        """Targets (N, K)."""
        return ops.input_("y", z.shape)

    def losses(self, z: Node, y: Node) -> Node:
        """N losses."""
        error = ops.map_(var(0) - var(1), z, y)
        return ops.reduce_sum(ops.map_(var(0) * var(0), error), (1,))

    def draw(self, z: Node) -> tuple[Node, Node]:
        """Y = z + ε/√2, ε standard normal, (N, K)."""
        noise = ops.input_("noise", z.shape)
        return ops.map_(var(0) + var(1) * math.sqrt(0.5), z, noise), noise

    def root(self, z: Node, units: Node) -> Node:
        """√2 e_k: B = 2I."""
        return ops.scale(units, math.sqrt(2.0))


@dataclass(frozen=True, repr=False)
class BCEWithLogitsLoss(_Loss):
    """ℓ = Σ_k softplus(z_k) − z_k y_k; labels float (N, K) in [0, 1]."""

    span: ClassVar[tuple[float, float] | None] = (0.0, 1.0)
    separable: ClassVar[bool] = True

    def labels(self, z: Node) -> Node:
        """Targets (N, K)."""
        return ops.input_("y", z.shape)

    def losses(self, z: Node, y: Node) -> Node:
        """N losses."""
        return ops.reduce_sum(ops.map_(scalar.softplus(var(0)) - var(0) * var(1), z, y), (1,))

    def draw(self, z: Node) -> tuple[Node, Node]:
        """Y = 1 where u < σ(z), (N, K) uniforms u."""
        u = ops.input_("noise", z.shape)
        return ops.map_(scalar.where(scalar.sigmoid(var(0)) - var(1), 1.0, 0.0), z, u), u

    def root(self, z: Node, units: Node) -> Node:
        """√(σ(1−σ)) e_k: B is diagonal; 1 − σ(z) is σ(−z), without cancellation."""
        slope = scalar.sigmoid(var(1)) * scalar.sigmoid(-var(1))
        return ops.map_(scalar.sqrt(slope) * var(0), units, ops.broadcast(z, units.shape, (0,)))
