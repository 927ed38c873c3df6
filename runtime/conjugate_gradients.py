"""Conjugate gradients, truncated, and Steihaug and Toint's in a ball, on any symmetric operator.

φ(x) = ½xᵀAx − bᵀx falls with every iteration; that is why a solve may be stopped early.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .checks import check_count, check_number
from .parts import Solution, Status
from .state import Attributes

if TYPE_CHECKING:
    from .model import Model
    from .parts import Curvature, Solver

Operator = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Stop:
    """When to stop: whichever comes first.

    limit: iterations. tolerance: of ‖r‖/‖b‖. progress: ε of Martens (2010, section 4.4): stop at
    iteration i where φ has fallen by less than kεφ over the last k = max(10, i/10); 0 never does.
    """

    limit: int
    tolerance: float
    progress: float = 0.0

    def __post_init__(self) -> None:
        check_count("limit", self.limit)
        check_number("tolerance", self.tolerance, 0.0, below=1.0)
        check_number("progress", self.progress, 0.0, below=1.0)


def _dot(u: Tensor, v: Tensor) -> float:
    return float(torch.dot(u.reshape(-1), v.reshape(-1)))


def conjugate_gradients(
    product: Operator,
    b: Tensor,
    stop: Stop,
    precondition: Operator | None = None,
    radius: float = math.inf,
) -> Solution:
    """X ≈ A⁻¹b from 0, in the ball ‖x‖ ≤ radius.

    Where a direction has no positive curvature it is followed to the boundary if there is one;
    without one the last x is returned, and b itself if that direction was the first.

    Args:
        product: A, symmetric.
        b: of any shape.
        stop: limits and tolerances.
        precondition: M⁻¹, symmetric and positive definite.
        radius: of the ball (Steihaug 1983); not together with a preconditioner, whose norm is
            another.

    Returns:
        x, a status, and the count `cg_iterations` (products with A).
    """
    x, r = torch.zeros_like(b), b.clone()
    b_norm = math.sqrt(_dot(b, b))
    fallen: list[float] = []  # −φ(x_i)

    def solution(status: Status, iterations: int) -> Solution:
        return Solution(x, status, {"cg_iterations": iterations})

    if not math.isfinite(b_norm):
        return solution(Status.NOT_FINITE, 0)
    if b_norm == 0.0:
        return solution(Status.SOLVED, 0)
    z = r if precondition is None else precondition(r)
    p, rz = z.clone(), _dot(r, z)
    for i in range(1, stop.limit + 1):
        q = product(p)
        curvature = _dot(p, q)
        if not (math.isfinite(curvature) and math.isfinite(rz)):
            x.zero_()
            return solution(Status.NOT_FINITE, i)
        if rz < 0.0:
            x.zero_()
            return solution(Status.BREAKDOWN, i)
        if curvature <= 0.0:
            if math.isfinite(radius):
                x.add_(p, alpha=_to_boundary(x, p, radius))
            elif i == 1:
                x.copy_(b)
            return solution(Status.NEGATIVE_CURVATURE, i)
        alpha = rz / curvature
        if math.isfinite(radius):
            reach = _to_boundary(x, p, radius)
            if alpha >= reach:
                x.add_(p, alpha=reach)
                return solution(Status.BOUNDARY, i)
        x.add_(p, alpha=alpha)
        r.sub_(q, alpha=alpha)
        if math.sqrt(_dot(r, r)) <= stop.tolerance * b_norm:
            return solution(Status.SOLVED, i)
        if stop.progress:
            fallen.append(0.5 * (_dot(r, x) + _dot(b, x)))
            k = max(10, i // 10)
            if i > k and fallen[-1] - fallen[-1 - k] < k * stop.progress * fallen[-1]:
                return solution(Status.STALLED, i)
        z = r if precondition is None else precondition(r)
        rz, before = _dot(r, z), rz
        if rz == 0.0:  # r is below the range of its dtype
            return solution(Status.SOLVED, i)
        p.mul_(rz / before).add_(z)
    return solution(Status.LIMIT, stop.limit)


def _to_boundary(x: Tensor, p: Tensor, radius: float) -> float:
    """τ ≥ 0 with ‖x + τp‖ = radius; without the cancellation of the textbook formula."""
    pp, xp, room = _dot(p, p), _dot(x, p), max(0.0, radius**2 - _dot(x, x))
    root = math.sqrt(xp**2 + pp * room)
    return room / (xp + root) if xp > 0 else (root - xp) / pp


class TruncatedCG:
    """Conjugate gradients on the whole of C + damping·I (Martens 2010; Wang, Tan & Lin 2020).

    Args:
        limit: most iterations.
        tolerance: σ of ‖(C + damping·I)x − g‖ ≤ σ‖g‖.
        progress: ε of Martens' rule, 0.0005 in his paper; 0 leaves it out.
        preconditioner: a solver on Kronecker blocks; the curvature must bring them, see
            `Preconditioned`.
    """

    name = "truncated-cg"
    bounded = False

    def __init__(
        self,
        limit: int = 250,
        tolerance: float = 0.1,
        progress: float = 0.0,
        preconditioner: Solver | None = None,
    ) -> None:
        self.stop = Stop(limit, tolerance, progress)
        self.preconditioner = preconditioner

    def solve(self, curvature: Curvature, damping: float, g: Tensor) -> Solution:
        """X and how far it came; `FAILED` where the preconditioner did."""
        inner, blocks = self.preconditioner, getattr(curvature, "preconditioner", None)
        precondition = None
        if inner is not None:
            first = inner.solve(blocks, damping, g)
            if first.status.failed:
                return first
            precondition = lambda r: inner.solve(blocks, damping, r).x  # noqa: E731
        product = _damped(curvature, damping)
        return conjugate_gradients(product, g, self.stop, precondition)

    def state_spec(self, model: Model) -> Mapping[str, Any]:
        """The preconditioner's state."""
        inner = self.preconditioner
        return {} if inner is None else {"preconditioner": inner.state_spec(model)}

    def state_dict(self) -> dict[str, Any]:
        """The preconditioner's state."""
        inner = self.preconditioner
        return {} if inner is None else {"preconditioner": inner.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        if self.preconditioner is not None:
            self.preconditioner.load_state_dict(state["preconditioner"])


class Steihaug(Attributes):
    """Conjugate gradients in the trust region: minimises gᵀs + ½sᵀ(C + damping·I)s, ‖s‖ ≤ Δ.

    Negative curvature is followed to the boundary (Steihaug 1983, Toint 1981). x is −s.

    Args:
        limit: most iterations.
        tolerance: σ of ‖(C + damping·I)x − g‖ ≤ σ‖g‖ inside the ball.
        progress: ε of Martens' rule; 0 leaves it out.
    """

    name = "steihaug"
    bounded = True

    def __init__(self, limit: int = 250, tolerance: float = 0.1, progress: float = 0.0) -> None:
        self.stop = Stop(limit, tolerance, progress)

    def solve(
        self, curvature: Curvature, damping: float, g: Tensor, radius: float = math.inf
    ) -> Solution:
        """x, ‖x‖ ≤ radius, and how far it came."""
        return conjugate_gradients(_damped(curvature, damping), g, self.stop, radius=radius)


def _damped(curvature: Curvature, damping: float) -> Operator:
    return lambda p: curvature.mv(p).add_(p, alpha=damping)
