"""Levenberg and Marquardt's damping with a backtracking line search (Wang, Tan & Lin 2020)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from torch import Tensor

from ...compiler.graph.options import check_count, check_number, check_option
from ...compiler.programs import MATRICES
from ..parts.protocols import Hides, Point, Proposal
from ..parts.state import Number, Spec
from .refusals import grown, shrunk
from .rule import GOOD, POOR, ModelRule, recovers, reduction_ratio

if TYPE_CHECKING:
    from ..model.model import Model


class LevenbergMarquardt(ModelRule):
    """The step s = −αx, with α the first of 1, ½, ¼, … for which h(θ + s) ≤ h(θ) + c·gᵀs.

    The solver's damping λ follows ρ, taken at that α after the search, the predicted decrease with
    weight decay but without λ (their eq. 37): ×drop above ¾, ×boost below ¼. Where no α serves, or
    x leads uphill, the step is rejected and λ boosted, at the n-th such step in a row 2ⁿ⁻¹ times;
    good steps take that back, half of the way each.

    Args:
        model: the quadratic model's curvature, "ggn" or "hessian".
        sufficient: c of the decrease (Armijo), 0 < c < 1.
        halvings: the most halvings of α in one search, ≥ 0.
        drop: the factor of λ where the model is good, 0 < drop < 1.
        boost: the factor of λ where it is poor, > 1.

    Attributes:
        refused: how many steps in a row have been refused.
        raised: the factor by which refusals have raised λ.

    Examples:
        >>> import torch
        >>> import newtriton as nt
        >>> model = nt.compile(nt.Linear(3), (3,), nt.CrossEntropyLoss(), device="cpu")
        >>> rule = nt.LevenbergMarquardt(halvings=5)
        >>> optimizer = nt.SecondOrder(model, nt.MatrixFree(model), nt.TruncatedCG(), rule)
        >>> report = optimizer.step(torch.eye(3), torch.arange(3))
        >>> report.accepted, report.halvings <= 5
        (True, True)
    """

    name = "levenberg-marquardt"
    tags = frozenset()
    radius = lr = None
    STATE: ClassVar[tuple[str, ...]] = ("refused", "raised")

    def __init__(
        self,
        model: str = "ggn",
        *,
        sufficient: float = 1e-4,
        halvings: int = 20,
        drop: float = 2 / 3,
        boost: float = 3 / 2,
    ) -> None:
        super().__init__()
        check_option("model", model, MATRICES)
        self.matrix = model
        self.sufficient = check_number("sufficient", sufficient, above=0.0, below=1.0)
        self.halvings = check_count("halvings", halvings, 0)
        self.drop = check_number("drop", drop, above=0.0, below=1.0)
        self.boost = check_number("boost", boost, above=1.0)
        self.refused, self.raised = 0, 1.0

    def state_spec(self, model: Model) -> Mapping[str, Spec]:
        """Returns the specification of the count of refusals, and of what they did to λ."""
        return {"refused": Number(int, 0), "raised": Number(float, 1.0)}

    def propose(self, direction: Tensor, point: Point) -> Proposal:
        """Returns the whole step −x; the search shortens it."""
        step = -direction
        _, (norm,), (slope,), _, ((form,),) = self.measured(direction, point)
        if norm == 0.0:
            return Proposal(step, 0.0, 0.0)
        with np.errstate(over="ignore", invalid="ignore"):
            slope *= -norm
            predicted = -float(slope + 0.5 * norm**2 * form)
        return Proposal(step, float(norm), predicted, float(slope), 1.0)

    def shorten(self, loss: float, new_loss: float, proposal: Proposal) -> Proposal | None:
        """Returns half the step, until it suffices or the halvings are used up."""
        if self._suffices(loss, new_loss, proposal) or proposal.halvings == self.halvings:
            return None
        if not proposal.slope < 0.0:
            return None
        return replace(proposal.times(0.5), halvings=proposal.halvings + 1)

    def _suffices(self, loss: float, new_loss: float, proposal: Proposal) -> bool:
        return math.isfinite(new_loss) and new_loss <= loss + self.sufficient * proposal.slope

    def judge(
        self, loss: float, new_loss: float, proposal: Proposal, hides: Hides
    ) -> tuple[bool, float | None]:
        """Accepts a decrease that is sufficient, or that rounding hides."""
        rho = reduction_ratio(loss, new_loss, proposal.predicted, hides)
        descends = proposal.slope < 0.0 or proposal.norm == 0.0
        accepted = descends and (rho is None or self._suffices(loss, new_loss, proposal))
        self.refused = 0 if accepted else self.refused + 1
        return accepted, rho

    def tighten(self) -> None:
        """Counts a step that could not be made."""
        self.refused += 1

    def adapt(self, damping: float, rho: float | None) -> float:
        """Returns λ, which follows ρ: smaller where the model is good, larger where it is poor."""
        if self.refused:
            damping, self.raised = grown(damping, self.raised, self.boost, self.refused)
            return damping
        if recovers(rho) and self.raised > 1.0:
            damping, self.raised = shrunk(damping, self.raised, self.boost)
        if rho is None or POOR <= rho <= GOOD:
            return damping
        return damping * (self.drop if rho > GOOD else self.boost)
