"""Conjugate gradients, truncated, and Steihaug and Toint's in a ball, on any symmetric operator.

φ(x) = ½xᵀAx − bᵀx falls with every iteration; that is why a solve may be stopped early.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...compiler.graph.options import check_count, check_number
from ..vectors import Operator, System, Vectors
from .protocols import Solution, Status
from .state import Attributes

if TYPE_CHECKING:
    from ..model.model import Model
    from .protocols import Curvature, Solver


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


def conjugate_gradients(
    product: Operator, system: System, stop: Stop, vectors: Vectors | None = None
) -> Solution:
    """X ≈ (A + γI)⁻¹b from 0, in the ball ‖x‖ ≤ radius.

    Where a direction has no positive curvature it is followed to the boundary if there is one;
    without one the last x is returned, and b itself if that direction was the first.

    Args:
        product: A, symmetric.
        system: b, of any shape, γ, and a radius (Steihaug 1983) or a preconditioner; not both,
            since the preconditioner's norm is another.
        stop: limits and tolerances.
        vectors: who computes; PyTorch's operators unless given.

    Returns:
        x, a status, and the count `cg_iterations` (products with A).
    """
    vectors, shape = vectors or Vectors(), system.b.shape
    system = replace(system, b=system.b.reshape(-1))
    b_norm = math.sqrt(vectors.gram([system.b])[0, 0])
    fallen = [0.0]  # −φ(x_i)

    def solution(x: Tensor, status: Status, iterations: int) -> Solution:
        x = torch.zeros_like(x) if status.failed else x
        return Solution(x.view(shape), status, {"cg_iterations": iterations})

    if not 0.0 < b_norm < math.inf:
        status = Status.SOLVED if b_norm == 0.0 else Status.NOT_FINITE
        return solution(torch.zeros_like(system.b), status, 0)
    at = vectors.first(system)
    for i in range(1, stop.limit + 1):
        at = vectors.turn(system, at) if i > 1 else at
        q = product(at.p.view(shape)).reshape(-1)
        at, numbers = vectors.iterate(system, at, q)
        if not (math.isfinite(numbers.curvature) and math.isfinite(numbers.rz)):
            return solution(at.x, Status.NOT_FINITE, i)
        if numbers.rz < 0.0:
            return solution(at.x, Status.BREAKDOWN, i)
        if numbers.rz == 0.0:  # z is below the range of its dtype
            return solution(at.x, Status.SOLVED, i)
        if numbers.curvature <= 0.0:
            followed = i > 1 or system.in_ball
            return solution(at.x if followed else system.b.clone(), Status.NEGATIVE_CURVATURE, i)
        if numbers.reached:
            return solution(at.x, Status.BOUNDARY, i)
        if math.sqrt(numbers.rr) <= stop.tolerance * b_norm:
            return solution(at.x, Status.SOLVED, i)
        # The step αp is exact along p, so that φ falls by ½α⟨r, z⟩: no difference of large numbers.
        fallen.append(fallen[-1] + 0.5 * numbers.rz * (numbers.rz / numbers.curvature))
        k = max(10, i // 10)
        if i > k and fallen[-1] - fallen[-1 - k] < k * stop.progress * fallen[-1]:
            return solution(at.x, Status.STALLED, i)
    return solution(at.x, Status.LIMIT, stop.limit)


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
        system = System(g, damping, precondition=precondition)
        return conjugate_gradients(curvature.mv, system, self.stop, curvature.model.vectors)

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
        system = System(g, damping, radius)
        return conjugate_gradients(curvature.mv, system, self.stop, curvature.model.vectors)
