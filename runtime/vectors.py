"""Arithmetic on flat vectors: what step rules and conjugate gradients do beside their products.

`Vectors` runs on PyTorch's operators. It is the oracle of `fused.vectors.CompiledVectors`. All
vectors of a call have one shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Matrix = NDArray[np.float64]
Operator = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class System:
    """The system (A + damping·I) x = b in the ball ‖x‖ ≤ radius, for an A that callers know.

    Attributes:
        b: the right-hand side.
        damping: a number that is added to the diagonal.
        radius: the radius of the ball; infinity where there is none.
        precondition: M⁻¹ of a preconditioner M, symmetric and positive definite.
    """

    b: Tensor
    damping: float = 0.0
    radius: float = math.inf
    precondition: Operator | None = None

    @property
    def in_ball(self) -> bool:
        """Whether the ball has a boundary."""
        return math.isfinite(self.radius)

    @cached_property
    def given(self) -> Tensor:
        """Damping and radius as a tensor [2] on the device of b."""
        return torch.tensor([self.damping, self.radius], dtype=self.b.dtype, device=self.b.device)

    def preconditioned(self, r: Tensor) -> Tensor:
        """Returns M⁻¹ r."""
        return r if self.precondition is None else self.precondition(r)


@dataclass
class Iterate:
    """An iterate of conjugate gradients.

    Attributes:
        x: the solution so far.
        r: its residual b − (A + damping·I) x.
        p: the direction of the next step.
        rz: ⟨r, z⟩ for z = M⁻¹ r.
    """

    x: Tensor
    r: Tensor
    p: Tensor
    rz: float | Tensor


class Numbers(NamedTuple):
    """What an iteration has seen.

    Attributes:
        rz: ⟨r, z⟩ before it.
        curvature: ⟨p, (A + damping·I) p⟩ along its direction p.
        reached: whether its step ended at the boundary: 1 or 0.
        rr: ⟨r, r⟩ after it.
    """

    rz: float
    curvature: float
    reached: float
    rr: float


def inner(u: Tensor, v: Tensor) -> float:
    """Returns ⟨u, v⟩, computed in float64."""
    return float(torch.dot(u.double(), v.double()))


def _dot(u: Tensor, v: Tensor) -> float:
    """Returns ⟨u, v⟩, computed in their own precision."""
    return float(torch.dot(u, v))


class Vectors:
    """Arithmetic on flat vectors by PyTorch's operators.

    Examples:
        >>> import torch
        >>> from newtriton.runtime.vectors import Vectors
        >>> u, v = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 0.0])
        >>> Vectors().gram([u, v]).tolist()
        [[5.0, 3.0], [3.0, 9.0]]
    """

    def gram(self, vectors: Sequence[Tensor]) -> Matrix:
        """Returns the matrix k×k of the inner products ⟨vᵢ, vⱼ⟩ of k vectors."""
        count = len(vectors)
        result = np.empty((count, count))
        for i, u in enumerate(vectors):
            for j in range(i, count):
                result[i, j] = result[j, i] = inner(u, vectors[j])
        return result

    def combination(self, coefficients: Matrix, vectors: Sequence[Tensor]) -> Tensor:
        """Returns Σ cᵢ vᵢ for k coefficients and k vectors."""
        result = torch.zeros_like(vectors[0])
        for factor, vector in zip(coefficients, vectors, strict=True):
            result.add_(vector, alpha=float(factor))
        return result

    def first(self, system: System) -> Iterate:
        """Returns the first iterate, x = 0."""
        r = system.b.clone()
        z = system.preconditioned(r)
        return Iterate(torch.zeros_like(r), r, z.clone(), _dot(r, z))

    def iterate(self, system: System, at: Iterate, q: Tensor) -> tuple[Iterate, Numbers]:
        """Returns the next iterate and what was seen; see `compiler.vectors` for the equations.

        With a preconditioner its direction is that of the last one until `turn` is called.

        Args:
            system: what is solved.
            at: the last iterate, whose memory is written over.
            q: A p, which is written over.
        """
        x, r, p, rz = at.x, at.r, at.p, float(at.rz)
        if system.damping:
            q.add_(p, alpha=system.damping)
        curvature = _dot(p, q)
        step = rz / curvature if curvature > 0.0 else 0.0
        reached = False
        if system.in_ball:
            reach = _to_boundary(x, p, system.radius)
            reached = not curvature > 0.0 or step >= reach
            step = reach if reached else step
        x.add_(p, alpha=step)
        r.sub_(q, alpha=step)
        rr = _dot(r, r)
        if system.precondition is None:
            at = replace(at, rz=rr)
            p.mul_(rr / rz if rz else math.nan).add_(r)
        return at, Numbers(rz, curvature, reached, rr)

    def turn(self, system: System, at: Iterate) -> Iterate:
        """Returns the iterate with its own direction, where there is a preconditioner."""
        if system.precondition is None:
            return at
        z = system.precondition(at.r)
        rz = _dot(at.r, z)
        at.p.mul_(rz / at.rz).add_(z)
        return replace(at, rz=rz)


def _to_boundary(x: Tensor, p: Tensor, radius: float) -> float:
    """Returns τ ≥ 0 with ‖x + τp‖ = radius, without the cancellation of the textbook formula."""
    pp, xp, room = _dot(p, p), _dot(x, p), max(0.0, radius**2 - _dot(x, x))
    root = math.sqrt(xp * xp + pp * room)
    return room / (xp + root) if xp > 0 else (root - xp) / pp
