"""Arithmetic on flat vectors: what step rules and conjugate gradients do beside their products.

`Vectors` runs on PyTorch's operators. It is the oracle of `fused.vectors.CompiledVectors`. All
vectors of a call have one shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, reduce
from itertools import combinations_with_replacement
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..kernels.memory import empty_like
from .reading import read, upload

Matrix = NDArray[np.float64]
Operator = Callable[[Tensor], Tensor]

CHUNK = 1 << 16  # elements of a part in float64 that stays in the cache


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
        return upload([self.damping, self.radius], self.b)

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
    rz: Tensor


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


def inner_products(vectors: Sequence[Tensor]) -> Tensor:
    """Returns the inner products ⟨vᵢ, vⱼ⟩ with i ≤ j, row by row, computed in float64."""
    if vectors[0].numel() <= CHUNK or vectors[0].device.type != "cpu":
        return _inner_products(vectors)
    chunks = zip(*(v.split(CHUNK) for v in vectors), strict=True)
    return reduce(torch.add, map(_inner_products, chunks))


def _inner_products(vectors: Sequence[Tensor]) -> Tensor:
    exact = [v.double() for v in vectors]
    return torch.stack([torch.dot(u, v) for u, v in combinations_with_replacement(exact, 2)])


def inner(u: Tensor, v: Tensor) -> float:
    """Returns ⟨u, v⟩, computed in float64."""
    return float(inner_products([u, v])[1])


def _dot(u: Tensor, v: Tensor) -> Tensor:
    """Returns ⟨u, v⟩, computed in their own precision, as a number in float64."""
    return torch.dot(u, v).double()


def symmetric(products: Matrix, count: int) -> Matrix:
    """Returns the matrix k×k of products ⟨vᵢ, vⱼ⟩ that are given for i ≤ j, row by row."""
    result = np.empty((count, count))
    upper = _upper(count)
    result[upper] = result.T[upper] = products
    return result


@cache
def _upper(count: int) -> tuple[NDArray[np.intp], ...]:
    """Returns the places with i ≤ j of a matrix k×k, row by row."""
    return np.triu_indices(count)


class Vectors:
    """Arithmetic on flat vectors by PyTorch's operators.

    Examples:
        >>> import torch
        >>> from newtriton.runtime.vectors import Vectors
        >>> u, v = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 0.0])
        >>> Vectors().gram([u, v]).tolist()
        [[5.0, 3.0], [3.0, 9.0]]
    """

    def products(self, vectors: Sequence[Tensor]) -> Tensor:
        """Returns the inner products ⟨vᵢ, vⱼ⟩ with i ≤ j, row by row, where the vectors are."""
        return inner_products(vectors)

    def gram(self, vectors: Sequence[Tensor]) -> Matrix:
        """Returns the matrix k×k of the inner products ⟨vᵢ, vⱼ⟩ of k vectors."""
        return symmetric(read(self.products(vectors))[0], len(vectors))

    def combination(self, coefficients: Matrix, vectors: Sequence[Tensor]) -> Tensor:
        """Returns Σ cᵢ vᵢ for k coefficients and k vectors."""
        first, *others = map(float, coefficients)
        result = torch.mul(vectors[0], first, out=empty_like(vectors[0]))
        for factor, vector in zip(others, vectors[1:], strict=True):
            result.add_(vector, alpha=factor)
        return result

    def first(self, system: System) -> Iterate:
        """Returns the first iterate, x = 0."""
        r = system.b.clone()
        z = system.preconditioned(r)
        return Iterate(torch.zeros_like(r), r, z.clone(), _dot(r, z))

    def iterate(self, system: System, at: Iterate, q: Tensor) -> tuple[Iterate, Numbers]:
        """Returns the next iterate for q = A p and what was seen, see `advance`."""
        at, seen = self.advance(system, at, q)
        return at, Numbers(*read(seen)[0].tolist())

    def advance(self, system: System, at: Iterate, q: Tensor) -> tuple[Iterate, Tensor]:
        """Returns the next iterate and its `Numbers` where they are; no transfer is made.

        See `compiler.vectors` for the equations. With a preconditioner the direction is that of
        the last iterate until `turn` is called.

        Args:
            system: what is solved.
            at: the last iterate, whose memory is written over.
            q: A p, which is written over.
        """
        x, r, p, rz = at.x, at.r, at.p, at.rz
        if system.damping:
            q.add_(p, alpha=system.damping)
        curvature = _dot(p, q)
        step = torch.where(curvature > 0.0, rz / curvature, 0.0)
        reached = torch.zeros_like(step)
        if system.in_ball:
            reach = _to_boundary(x, p, system.radius)
            leaves = ~(curvature > 0.0) | (step >= reach)
            reached, step = leaves.double(), torch.where(leaves, reach, step)
        x.addcmul_(p, step)
        r.addcmul_(q, step, value=-1.0)
        rr = _dot(r, r)
        if system.precondition is None:
            at = replace(at, rz=rr)
            p.mul_(rr / rz).add_(r)
        return at, torch.stack([rz, curvature, reached, rr])

    def turn(self, system: System, at: Iterate) -> Iterate:
        """Returns the iterate with its own direction, where there is a preconditioner."""
        if system.precondition is None:
            return at
        z = system.precondition(at.r)
        rz = _dot(at.r, z)
        at.p.mul_(rz / at.rz).add_(z)
        return replace(at, rz=rz)


def _to_boundary(x: Tensor, p: Tensor, radius: float) -> Tensor:
    """Returns τ ≥ 0 with ‖x + τp‖ = radius, without the cancellation of the textbook formula."""
    pp, xp, room = _dot(p, p), _dot(x, p), (radius**2 - _dot(x, x)).clamp(min=0.0)
    root = (xp * xp + pp * room).sqrt()
    return torch.where(xp > 0, room / (xp + root), (root - xp) / pp)
