"""Second-order optimizers: curvature × solver × step rule, and the report of a step.

No part imports another part's kind: any curvature goes with any solver and rule that accept it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..compiler.errors import NewtritonError
from .curvature import KroneckerCurvature
from .linearization import Linearization
from .model import Model
from .solvers import KFI, Solution, Status
from .trust_region import TrustRegion

PATIENCE = 10  # steps in a row that could not be made, then an error


@dataclass(frozen=True)
class StepReport:
    """What a step did. `rho`, `radius`, `damping`, `lr` are None where the method has none.

    loss: h before the step; new_loss: h at the point that was tried, None where none was. status:
    how the solve ended, or why no step could be made. predicted: the model's decrease. rejected:
    steps in a row that could not be made (a loss, gradient or curvature that is not finite, a solve
    that failed).
    """

    loss: float
    new_loss: float | None
    accepted: bool
    step_norm: float
    status: str
    rho: float | None = None
    predicted: float | None = None
    radius: float | None = None
    damping: float | None = None
    lr: float | None = None
    damping_retries: int = 0
    rejected: int = 0


class Patience:
    """Counts steps in a row that could not be made; gives up with an error after `PATIENCE`."""

    def __init__(self) -> None:
        self.rejected = 0

    def count(self, fault: str | None) -> None:
        """Notes what was wrong with a step, None where nothing was."""
        self.rejected = 0 if fault is None else self.rejected + 1
        if self.rejected >= PATIENCE:
            raise NewtritonError(
                f"{self.rejected} steps in a row were refused, the last for this: {fault}. "
                "Look at the data, take smaller steps or start from other parameters"
            )


def not_finite(loss: float, gradient: Tensor) -> str | None:
    """What is not finite; None where everything is."""
    if not math.isfinite(loss):
        return f"loss {loss}"
    return None if bool(torch.isfinite(gradient).all()) else "a gradient that is not finite"


class SecondOrder:
    """θ ← θ + s, s proposed by a step rule along the solver's direction.

    Args:
        model: what is trained.
        curvature: `update(lin)`, and what the solver needs.
        solver: `solve(curvature, damping, g)`.
        rule: `propose(direction, lin)`, `judge(loss, new_loss, proposal, eps)`, `tighten()`.
        damping: γ, added to the curvature with the model's weight decay.
    """

    def __init__(
        self,
        model: Model,
        curvature: KroneckerCurvature,
        solver: KFI,
        rule: TrustRegion,
        damping: float,
    ) -> None:
        if not (math.isfinite(damping) and damping >= 0):
            raise NewtritonError(f"damping is {damping!r}: give a number ≥ 0")
        self.model, self.curvature, self.solver, self.rule = model, curvature, solver, rule
        self.damping = damping
        self.patience = Patience()

    @torch.no_grad()
    def step(self, x: Tensor, y: Tensor) -> StepReport:
        """One step on a batch; one that is rejected leaves the parameters as they were."""
        model, rule = self.model, self.rule
        lin = model.linearize(x, y)

        def report(status: str, **what: Any) -> StepReport:
            return StepReport(
                lin.objective, status=status, radius=rule.radius, damping=self.damping,
                rejected=self.patience.rejected, **what,
            )  # fmt: skip

        solution = self._direction(lin)
        if isinstance(solution, str):
            rule.tighten()
            self.patience.count(solution)
            return report(solution, new_loss=None, accepted=False, step_norm=0.0)
        self.patience.count(None)
        proposal = rule.propose(solution.x, lin)
        before, accepted = model.params.clone(), False
        try:
            model.params.add_(proposal.step)
            finite = bool(torch.isfinite(model.params).all())
            new_loss = model.objective(x, y) if finite else math.inf
            eps = torch.finfo(model.dtype).eps
            accepted, rho = rule.judge(lin.objective, new_loss, proposal, eps)
        finally:  # an interrupt leaves no step that was not judged
            if not accepted:
                model.params.copy_(before)
        if accepted:
            model.update_statistics(lin.statistics)
        return report(
            solution.status.value, new_loss=new_loss, accepted=accepted, step_norm=proposal.norm,
            rho=rho, predicted=proposal.predicted, damping_retries=solution.statistics["retries"],
        )  # fmt: skip

    def _direction(self, lin: Linearization) -> Solution | str:
        """The solver's answer, or what stands in the way of one."""
        if (fault := not_finite(lin.objective, lin.gradient)) is not None:
            return fault
        if not self.curvature.update(lin):
            return "curvature that is not finite"
        damping = self.damping + self.model.weight_decay
        solution = self.solver.solve(self.curvature, damping, lin.gradient)
        if solution.status is Status.FAILED:
            return solution.status.value
        finite = bool(torch.isfinite(solution.x).all())
        return solution if finite else "a direction that is not finite"

    def state_dict(self) -> dict[str, Any]:
        """All that the coming steps depend on, besides model and data."""
        parts = {"curvature": self.curvature, "solver": self.solver, "rule": self.rule}
        state: dict[str, Any] = {name: part.state_dict() for name, part in parts.items()}
        return {**state, "damping": self.damping, "rejected": self.patience.rejected}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave, bit for bit."""
        self.curvature.load_state_dict(state["curvature"])
        self.solver.load_state_dict(state["solver"])
        self.rule.load_state_dict(state["rule"])
        self.damping, self.patience.rejected = state["damping"], state["rejected"]


class FITRE(SecondOrder):
    """FITRE (Kylasa et al. 2020): a trust region along the K-FAC direction, on the exact Hessian.

    Args:
        model: what is trained.
        damping: γ ≥ 0, added to the curvature together with the model's weight decay.
        max_radius: Δ_max of the trust region.
        initial_radius: Δ₀; Δ_max unless given.
        case: "kfac", "kfac+gradient" or "subspace", see `TrustRegion`.
        momentum: μ; the paper's runs use 0.9.
        factors: "kfac" (labels drawn from the model) or "empirical".
        every: steps between two refreshes of the factors; a pair (gather, invert) sets both apart.
        moving_average: θ of the factors.
        burn_in: first steps, each of which gathers.
        reject_below: ρ below which a step is rejected; FITRE's code uses 1e-4.
        seed: of the labels that are drawn.
    """

    def __init__(
        self,
        model: Model,
        damping: float = 0.1,
        max_radius: float = 1.0,
        *,
        initial_radius: float | None = None,
        case: str = "kfac",
        momentum: float = 0.0,
        factors: str = "kfac",
        every: int | tuple[int, int] = 5,
        moving_average: float = 0.95,
        burn_in: int = 5,
        reject_below: float = 0.25,
        seed: int = 0,
    ) -> None:
        pair = (every, every) if isinstance(every, int) else every
        if not (
            isinstance(pair, tuple) and [type(k) for k in pair] == [int, int] and min(pair) > 0
        ):
            raise NewtritonError(f"every is {every!r}: give steps ≥ 1, or a pair (gather, invert)")
        gather, invert = pair
        curvature = KroneckerCurvature(
            model, factors, moving_average=moving_average, every=gather, burn_in=burn_in, seed=seed
        )
        rule = TrustRegion(
            max_radius,
            initial_radius=initial_radius,
            case=case,
            momentum=momentum,
            reject_below=reject_below,
        )
        super().__init__(model, curvature, KFI(every=max(1, -(-invert // gather))), rule, damping)
