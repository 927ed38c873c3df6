"""Conjugate gradients on any symmetric operator: truncated, and Steihaug and Toint's in a ball.

The quadratic φ(x) = ½xᵀAx − bᵀx falls with every iteration, which is why a solve may be stopped
early.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...compiler.graph.errors import NewtritonError
from ...compiler.graph.options import check_count, check_number
from ..vectors import Operator, System, Vectors
from .protocols import LinearSolver, Solution, Status
from .state import Attributes, Spec, State
from .tags import MISSING, Tag

if TYPE_CHECKING:
    from .protocols import Curvature, Inverse, Solver


@dataclass(frozen=True)
class Stop:
    """When conjugate gradients stop: whichever of these comes first.

    Attributes:
        limit: the most iterations, ≥ 1.
        tolerance: the relative residual ‖r‖/‖b‖ at which to stop, 0 ≤ tolerance < 1.
        progress: ε of Martens (2010, section 4.4), 0 ≤ ε < 1: stop at iteration i where φ has
            fallen by less than kεφ over the last k = max(10, i/10); 0 never does.
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
    """Solves (A + γI) x = b by conjugate gradients from x = 0, in the ball ‖x‖ ≤ radius.

    Where a direction has no positive curvature it is followed to the boundary if there is one;
    without one the last x is returned, and b itself if that direction was the first.

    Args:
        product: the product with A, which is symmetric.
        system: b, of any shape, γ, and a radius (Steihaug 1983) or a preconditioner; not both,
            since the preconditioner's norm is another.
        stop: limits and tolerances.
        vectors: what computes on flat vectors; PyTorch's operators unless given.

    Returns:
        x in the shape of b, a status, and the count `cg_iterations` of products with A.
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


@dataclass(frozen=True)
class CGInverse:
    """The inverse (C + damping·I)⁻¹ by conjugate gradients, preconditioned where that is asked for.

    Attributes:
        curvature: C, as an operator.
        damping: what is added to its diagonal.
        stop: limits and tolerances.
        preconditioner: an approximate inverse that is cheap to apply, or None.
    """

    curvature: Curvature
    damping: float
    stop: Stop
    preconditioner: Inverse | None = None

    def solve(self, g: Tensor, radius: float | None = None) -> Solution:
        """Returns x as far as it came, or the preconditioner's solution where that failed at g."""
        precondition = None
        if (inverse := self.preconditioner) is not None:
            first = inverse.solve(g)
            if first.status.failed:
                return first
            known = [first.x]  # CG begins with r = g: its first z is known already
            precondition = lambda r: known.pop() if known else inverse.solve(r).x  # noqa: E731
        system = System(g, self.damping, precondition=precondition)
        vectors = self.curvature.model.vectors
        return conjugate_gradients(self.curvature.mv, system, self.stop, vectors)


@dataclass(frozen=True)
class BallInverse:
    """The inverse (C + damping·I)⁻¹ by conjugate gradients that end at the boundary of a ball.

    Attributes:
        curvature: C, as an operator.
        damping: what is added to its diagonal.
        stop: limits and tolerances.
    """

    curvature: Curvature
    damping: float
    stop: Stop

    def solve(self, g: Tensor, radius: float | None = None) -> Solution:
        """Returns x as far as it came, ‖x‖ ≤ radius."""
        system = System(g, self.damping, math.inf if radius is None else radius)
        vectors = self.curvature.model.vectors
        return conjugate_gradients(self.curvature.mv, system, self.stop, vectors)


class TruncatedCG(LinearSolver):
    """Conjugate gradients on the whole of C + damping·I (Martens 2010; Wang, Tan & Lin 2020).

    Args:
        limit: the most iterations, ≥ 1.
        tolerance: σ of ‖(C + damping·I)x − g‖ ≤ σ‖g‖, 0 ≤ σ < 1.
        progress: ε of Martens' rule, 0.0005 in his paper; 0 leaves it out.
        preconditioner: a solver on Kronecker blocks; the curvature must bring them, see
            `Preconditioned`.

    Attributes:
        needs: `Tag.PRECONDITIONER` where there is a preconditioner.
    """

    name = "truncated-cg"

    def __init__(
        self,
        limit: int = 250,
        tolerance: float = 0.1,
        progress: float = 0.0,
        preconditioner: Solver | None = None,
    ) -> None:
        self.stop = Stop(limit, tolerance, progress)
        self.preconditioner = preconditioner
        self.needs = frozenset(() if preconditioner is None else (Tag.PRECONDITIONER,))

    def prepare(self, curvature: Curvature, damping: float) -> CGInverse:
        """Returns the inverse, with the preconditioner's made ready where there is one.

        Raises:
            NewtritonError: there is one, and the curvature brings nothing for it.
        """
        if self.preconditioner is None:
            return CGInverse(curvature, damping, self.stop)
        inner = self.preconditioner.prepare(_inner(curvature), damping)
        return CGInverse(curvature, damping, self.stop, inner)

    def state_spec(self, curvature: Curvature) -> Mapping[str, Spec]:
        """Returns the specification of the preconditioner's state."""
        if self.preconditioner is None:
            return {}
        return {"preconditioner": self.preconditioner.state_spec(_inner(curvature))}

    def state_dict(self) -> State:
        """Returns the preconditioner's state, where there is one."""
        inner = self.preconditioner
        return {} if inner is None else {"preconditioner": inner.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Restores what `state_dict` gave."""
        if self.preconditioner is not None:
            self.preconditioner.load_state_dict(state["preconditioner"])


def _inner(curvature: Curvature) -> Curvature:
    """Returns the curvature that a preconditioner works on."""
    if curvature.preconditioner is None:
        raise NewtritonError(f"curvature {curvature.name!r}: {MISSING[Tag.PRECONDITIONER]}")
    return curvature.preconditioner


class Steihaug(LinearSolver, Attributes):
    """Conjugate gradients in the trust region: minimises gᵀs + ½sᵀ(C + damping·I)s, ‖s‖ ≤ Δ.

    Negative curvature is followed to the boundary (Steihaug 1983, Toint 1981). The solution x is
    −s; without a radius the ball has no boundary.

    Args:
        limit: the most iterations, ≥ 1.
        tolerance: σ of ‖(C + damping·I)x − g‖ ≤ σ‖g‖ inside the ball, 0 ≤ σ < 1.
        progress: ε of Martens' rule; 0 leaves it out.
    """

    name = "steihaug"
    needs = frozenset({Tag.RADIUS})

    def __init__(self, limit: int = 250, tolerance: float = 0.1, progress: float = 0.0) -> None:
        self.stop = Stop(limit, tolerance, progress)

    def prepare(self, curvature: Curvature, damping: float) -> BallInverse:
        """Returns the inverse; nothing is factorised."""
        return BallInverse(curvature, damping, self.stop)

    def state_spec(self, curvature: Curvature) -> Mapping[str, Spec]:
        """Returns nothing to be checked: there is no state."""
        return {}
