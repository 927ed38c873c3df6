"""Conjugate gradients on any symmetric operator: truncated, and Steihaug and Toint's in a ball.

The quadratic φ(x) = ½xᵀAx − bᵀx falls with every iteration, which is why a solve may be stopped
early.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...compiler.graph.errors import NewtritonError
from ...compiler.graph.options import check_count, check_number
from ..parts.protocols import LinearSolver, Solution, Status, check_solver
from ..parts.state import Spec, State, Undo, all_of, held
from ..parts.tags import MISSING, Tag
from ..reading import read
from ..vectors import Numbers, Operator, System, Vectors

if TYPE_CHECKING:
    from ..parts.protocols import Curvature, Inverse, Solver


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
    return conjugate_gradients_on_each([(product, system)], stop, vectors)[0]


def conjugate_gradients_on_each(
    systems: Sequence[tuple[Operator, System]], stop: Stop, vectors: Vectors | None = None
) -> list[Solution]:
    """Solves systems that do not depend on each other, see `conjugate_gradients`.

    They go on side by side, so that an iteration of all of them costs one transfer.
    """
    solves = [_Solve(product, system, stop, vectors or Vectors()) for product, system in systems]
    while running := [solve for solve in solves if solve.solution is None]:
        for solve, numbers in zip(running, read(*(s.advance() for s in running)), strict=True):
            solve.judge(*numbers.tolist())
    return [solve.solution for solve in solves if solve.solution is not None]


class _Solve:
    """A solve by conjugate gradients in the making.

    Args:
        product: the product with A.
        system: b, γ, and a radius or a preconditioner.
        stop: limits and tolerances.
        vectors: what computes on flat vectors.

    Attributes:
        solution: the solution, once there is one.
    """

    def __init__(self, product: Operator, system: System, stop: Stop, vectors: Vectors) -> None:
        self.product, self.stop, self.vectors = product, stop, vectors
        self.shape, self.system = system.b.shape, replace(system, b=system.b.reshape(-1))
        self.bb = vectors.products([self.system.b])
        self.at = vectors.first(self.system)
        self.iterations, self.fallen = 0, [0.0]  # −φ(x_i)
        self.solution: Solution | None = None

    def advance(self) -> Tensor:
        """Launches an iteration; returns ⟨b, b⟩ and the iteration's `Numbers`, unread."""
        if self.iterations:
            self.at = self.vectors.turn(self.system, self.at)
        q = self.product(self.at.p.view(self.shape)).reshape(-1)
        self.at, numbers = self.vectors.advance(self.system, self.at, q)
        self.iterations += 1
        return torch.cat([self.bb, numbers])

    def judge(self, bb: float, *numbers: float) -> None:
        """Ends the solve where these numbers say so."""
        status = self._end(math.sqrt(bb), Numbers(*numbers))
        if status is None and self.iterations == self.stop.limit:
            status = Status.LIMIT
        if status is None:
            return
        x, i = self.at.x, self.iterations
        if status is Status.NEGATIVE_CURVATURE and i == 1 and not self.system.in_ball:
            x = self.system.b.clone()
        if status.failed or bb == 0.0:
            x = torch.zeros_like(x)
        begun = 0.0 < bb < math.inf
        self.solution = Solution(x.view(self.shape), status, {"cg_iterations": i if begun else 0})

    def _end(self, b_norm: float, numbers: Numbers) -> Status | None:
        """Returns how the solve has ended; None where it goes on."""
        if not 0.0 < b_norm < math.inf:
            return Status.SOLVED if b_norm == 0.0 else Status.NOT_FINITE
        if not (math.isfinite(numbers.curvature) and math.isfinite(numbers.rz)):
            return Status.NOT_FINITE
        if numbers.rz < 0.0:
            return Status.BREAKDOWN
        if numbers.rz == 0.0:  # z is below the range of its dtype
            return Status.SOLVED
        if numbers.curvature <= 0.0:
            return Status.NEGATIVE_CURVATURE
        if numbers.reached:
            return Status.BOUNDARY
        if math.sqrt(numbers.rr) <= self.stop.tolerance * b_norm:
            return Status.SOLVED
        # The step αp is exact along p, so that φ falls by ½α⟨r, z⟩: no difference of large numbers.
        fallen, i = self.fallen, self.iterations
        fallen.append(fallen[-1] + 0.5 * numbers.rz * (numbers.rz / numbers.curvature))
        k = max(10, i // 10)
        stalled = i > k and fallen[-1] - fallen[-1 - k] < k * self.stop.progress * fallen[-1]
        return Status.STALLED if stalled else None


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
            `WithPreconditioner`.

    Attributes:
        needs: `Tag.PRECONDITIONER` where there is a preconditioner.

    Examples:
        >>> import torch
        >>> import newtriton as nt
        >>> model = nt.compile(nt.Linear(3), (3,), nt.CrossEntropyLoss(), device="cpu")
        >>> solver = nt.TruncatedCG(limit=5, tolerance=1e-3)
        >>> optimizer = nt.SecondOrder(model, nt.MatrixFree(model, "ggn"), solver, nt.TrustRegion())
        >>> 1 <= optimizer.step(torch.eye(3), torch.arange(3)).cg_iterations <= 5
        True
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
        if preconditioner is not None:
            check_solver("preconditioner", preconditioner)
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

    def hold(self) -> Undo:
        """Returns what puts the preconditioner back to what it is now."""
        return all_of([] if self.preconditioner is None else [held(self.preconditioner)])

    def load_state_dict(self, state: State) -> None:
        """Restores what `state_dict` gave."""
        if self.preconditioner is not None:
            self.preconditioner.load_state_dict(state["preconditioner"])


def _inner(curvature: Curvature) -> Curvature:
    """Returns the curvature that a preconditioner works on."""
    if curvature.preconditioner is None:
        raise NewtritonError(f"curvature {curvature.name!r}: {MISSING[Tag.PRECONDITIONER]}")
    return curvature.preconditioner


class Steihaug(LinearSolver):
    """Conjugate gradients in the trust region: minimises gᵀs + ½sᵀ(C + damping·I)s, ‖s‖ ≤ Δ.

    Negative curvature is followed to the boundary (Steihaug 1983, Toint 1981). The solution x is
    −s; without a radius the ball has no boundary.

    Args:
        limit: the most iterations, ≥ 1.
        tolerance: σ of ‖(C + damping·I)x − g‖ ≤ σ‖g‖ inside the ball, 0 ≤ σ < 1.
        progress: ε of Martens' rule; 0 leaves it out.

    Examples:
        >>> import torch
        >>> import newtriton as nt
        >>> model = nt.compile(nt.Linear(3), (3,), nt.CrossEntropyLoss(), device="cpu")
        >>> rule = nt.TrustRegion(max_radius=0.5)
        >>> optimizer = nt.SecondOrder(model, nt.MatrixFree(model, "hessian"), nt.Steihaug(), rule)
        >>> report = optimizer.step(torch.eye(3), torch.arange(3))
        >>> report.accepted, report.step_norm <= 0.5 + 1e-6
        (True, True)
    """

    name = "steihaug"
    needs = frozenset({Tag.RADIUS})

    def __init__(self, limit: int = 250, tolerance: float = 0.1, progress: float = 0.0) -> None:
        self.stop = Stop(limit, tolerance, progress)

    def prepare(self, curvature: Curvature, damping: float) -> BallInverse:
        """Returns the inverse; nothing is factorised."""
        return BallInverse(curvature, damping, self.stop)
