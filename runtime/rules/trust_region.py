"""The trust region of FITRE: the best step in a small subspace, and the radius that follows ρ.

The model m(s) = gᵀs + ½ sᵀHs is minimised over ‖s‖ ≤ Δ within the span of a few directions, from
their inner products, quadratic forms and slopes alone: k×k matrices in float64 (FITRE, Algorithm
1; its closed form in section 3.2 is not the minimiser and is not followed).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from ...compiler.graph.errors import NewtritonError
from ...compiler.graph.options import check_number, check_option
from ...compiler.programs import MATRICES
from ..parts.protocols import Hides, Point, Proposal
from ..parts.state import Maybe, Number, Shaped, Spec
from ..parts.tags import Tag
from .rule import GOOD, POOR, Matrix, ModelRule, reduction_ratio

if TYPE_CHECKING:
    from ..model.model import Model

CASES = ("kfac", "kfac+gradient", "subspace")


def minimise_in_ball(
    slope: Matrix, curvature: Matrix, metric: Matrix, radius: float, tolerance: float = 1e-12
) -> Matrix:
    """Returns the c that minimises slopeᵀc + ½ cᵀ curvature c globally in a ball.

    The ball is cᵀ metric c ≤ radius².

    Args:
        slope: k inner products gᵀvᵢ.
        curvature: k×k forms vᵢᵀHvⱼ, of any sign.
        metric: k×k inner products vᵢᵀvⱼ.
        radius: Δ > 0.
        tolerance: combinations with a smaller share of the metric are dropped. An error ε in the
            forms grows to ε/tolerance along them.

    Returns:
        c; NaN where the forms overflow along such a combination.
    """
    scales, axes = np.linalg.eigh(metric)
    kept = scales > tolerance * max(scales.max(), 0.0)
    if not kept.any():
        return np.zeros_like(slope)
    basis = axes[:, kept] / np.sqrt(scales[kept])  # metric-orthonormal
    inside = basis.T @ curvature @ basis
    if not np.isfinite(inside).all():
        return np.full_like(slope, math.nan)
    values, vectors = np.linalg.eigh(inside)
    b = vectors.T @ (basis.T @ slope)
    return basis @ (vectors @ _secular(b, values, radius))


def _secular(b: Matrix, values: Matrix, radius: float) -> Matrix:
    """Minimises bᵀy + ½ Σ valuesᵢ yᵢ² over ‖y‖ ≤ radius (Moré & Sorensen 1983).

    The values ascend.
    """
    lowest = values[0]
    scale = max(np.abs(values).max(), np.linalg.norm(b) / radius, np.finfo(float).tiny)
    if not b.any():
        y = np.zeros_like(b)
        if lowest < 0:
            y[0] = radius
        return y

    gaps = values + max(0.0, -lowest)  # the smallest shift that leaves no negative curvature

    def step(more: float) -> Matrix:
        denominators = gaps + more
        return np.divide(
            -b, denominators, out=np.zeros_like(b), where=(b != 0) & (denominators != 0)
        )

    if lowest > 0 and np.linalg.norm(step(0.0)) <= radius:
        return step(0.0)
    singular = gaps <= 1e-14 * scale
    if not (np.abs(b[singular]) > 1e-14 * np.linalg.norm(b)).any():
        # The hard case: the shifted system is singular but solvable; a null vector reaches the
        # boundary, where curvature along it is negative and not zero.
        y = np.where(singular, 0.0, step(0.0))
        short = radius**2 - y @ y
        if short >= 0:
            if lowest < -1e-14 * scale:
                y[0] = math.sqrt(short)
            return y
    low, high = 0.0, np.linalg.norm(b) / radius + scale
    for _ in range(200):
        middle = 0.5 * (low + high)
        if middle in (low, high):
            break
        inside = np.linalg.norm(step(middle)) <= radius
        low, high = (low, middle) if inside else (middle, high)
    return step(high)


def _staying(like: Tensor, predicted: float) -> Proposal:
    """Returns the step that stays where it is."""
    return Proposal(torch.zeros_like(like), 0.0, predicted)


class TrustRegion(ModelRule):
    """The step that minimises m(s) = gᵀs + ½sᵀHs over ‖s‖ ≤ Δ in the span of a few directions.

    Δ doubles where ρ ≥ ¾ and halves where ρ < ¼ (FITRE: Kylasa et al. 2020, Algorithm 1). Where it
    is relative, a rejected step that lay inside halves its own length in place of Δ.

    Args:
        max_radius: Δ_max, in the units of the parameters; finite. None takes the solver's own step
            for the unit: Δ = τ‖r‖, where τ ≤ 1 follows ρ in place of Δ.
        initial_radius: Δ₀; Δ_max unless given.
        min_radius: the radius Δ never falls below it; 0 < min ≤ initial ≤ max.
        case: "kfac" searches along the direction; "kfac+gradient" takes the better of the best
            points along it and along the gradient; "subspace" minimises over the span of both.
        momentum: μ of s = ηr + μ·(last accepted step), scaled to ‖s‖ ≤ Δ; 0 ≤ μ < 1. It is left
            out of a step that it would send uphill in the model, where ρ has no meaning.
        reject_below: ρ below which a step is rejected, 0 ≤ ρ ≤ ¾.
        model: which matrix H is, the "hessian" or "ggn" of h.

    Attributes:
        radius: Δ as it is now, or τ.
        relative: whether it is τ.
        last: the last accepted step, where there is momentum.

    Raises:
        NewtritonError: an option is unknown or out of its range.

    Examples:
        >>> import torch
        >>> import newtriton as nt
        >>> model = nt.compile(nt.Linear(3), (3,), nt.CrossEntropyLoss(), device="cpu")
        >>> rule = nt.TrustRegion(max_radius=1.0, initial_radius=0.25, case="subspace")
        >>> optimizer = nt.SecondOrder(model, nt.KroneckerCurvature(model), nt.KFI(), rule)
        >>> report = optimizer.step(torch.eye(3), torch.arange(3))
        >>> report.accepted, report.step_norm <= 0.25 + 1e-6
        (True, True)
    """

    name = "trust-region"
    tags = ModelRule.tags | {Tag.RADIUS}
    lr = None
    STATE: ClassVar[tuple[str, ...]] = ("radius", "last")

    def __init__(
        self,
        max_radius: float | None = 1.0,
        *,
        initial_radius: float | None = None,
        min_radius: float = 1e-8,
        case: str = "kfac",
        momentum: float = 0.0,
        reject_below: float = POOR,
        model: str = "hessian",
    ) -> None:
        super().__init__()
        check_option("case", case, CASES)
        check_option("model", model, MATRICES)
        self.curvature, self.matrix = model, None if model == "hessian" else model
        self.relative = max_radius is None
        max_radius = 1.0 if max_radius is None else max_radius
        radius = max_radius if initial_radius is None else initial_radius
        for name, value in (("max", max_radius), ("initial", radius), ("min", min_radius)):
            check_number(f"{name}_radius", value)
        if not 0 < min_radius <= radius <= max_radius:
            raise NewtritonError(
                f"radii are min {min_radius}, initial {radius}, max {max_radius}: "
                "give 0 < min ≤ initial ≤ max"
            )
        check_number("momentum", momentum, 0.0, below=1.0)
        check_number("reject_below", reject_below, 0.0, GOOD)
        self.max_radius, self.min_radius = float(max_radius), float(min_radius)
        self.radius = float(radius)
        self.case, self.momentum, self.reject_below = case, momentum, reject_below
        width = 1 if case == "kfac" else 2
        self.widths = (width, width + 1) if momentum else (width,)
        self.last: Tensor | None = None

    def state_spec(self, model: Model) -> Mapping[str, Spec]:
        """Returns the specification of the radius and the last step."""
        last = Maybe(Shaped((model.layout.numel,), model.dtype))
        return {"radius": Number(float, 0.0), "last": last}

    def span(self, direction: Tensor, point: Point) -> list[Tensor]:
        """Returns what is searched, then the last step."""
        vectors = [direction] if self.case == "kfac" else [direction, point.gradient]
        return vectors if self.last is None else [*vectors, self.last]

    def propose(self, direction: Tensor, point: Point) -> Proposal:
        """Returns the step from the solver's direction r ≈ C⁻¹g."""
        units, norms, slope, metric, curvature = self.measured(direction, point)
        searched = len(units) - (self.last is not None)
        if not np.isfinite(norms).all():
            return _staying(direction, math.nan)
        if 0.0 in norms:
            return _staying(direction, 0.0)
        if not (np.isfinite(slope).all() and np.isfinite(curvature).all()):
            return _staying(direction, math.nan)

        def model(c: Matrix) -> float:
            return float(slope @ c + 0.5 * c @ curvature @ c)

        def length(c: Matrix) -> float:
            return math.sqrt(max(0.0, c @ metric @ c))

        tolerance = math.sqrt(torch.finfo(direction.dtype).eps)
        radius = self.radius * float(norms[0]) if self.relative else self.radius
        with np.errstate(over="ignore", invalid="ignore"):
            candidates = self._search(slope, curvature, metric, searched, radius, tolerance)
            c = min(candidates, key=model)
        if not math.isfinite(model(c)):
            return _staying(direction, math.nan)
        if self.last is not None:
            carried = np.append(c[:-1], self.momentum * norms[-1])
            carried *= min(1.0, radius / (length(carried) or radius))
            c = carried if model(carried) < 0 else c
        step, along = point.vectors.combination(c, units), -float(c[0] / norms[0])
        return Proposal(
            step, length(c), -model(c), float(slope @ c), along, bool(slope[0] < 0.0),
            bounded=length(c) > 0.99 * radius,
        )  # fmt: skip

    def _search(
        self,
        slope: Matrix,
        curvature: Matrix,
        metric: Matrix,
        searched: int,
        radius: float,
        tolerance: float,
    ) -> list[Matrix]:
        """Returns coefficients of the steps to choose from, in the first `searched` directions."""

        def over(*chosen: int) -> Matrix:
            c, these = np.zeros_like(slope), list(chosen)
            part = np.ix_(these, these)
            if slope[these].any():  # along a direction without slope the step is 0
                c[these] = minimise_in_ball(
                    slope[these], curvature[part], metric[part], radius, tolerance
                )
            return c

        if self.case == "subspace":
            return [over(*range(searched))]
        return [over(i) for i in range(searched)]

    def judge(
        self, loss: float, new_loss: float, proposal: Proposal, hides: Hides
    ) -> tuple[bool, float | None]:
        """Accepts a step where ρ is high enough or says nothing; the radius follows ρ.

        It doubles too where rounding hides what a step of its length does: refusals have made it
        too short to be judged by.
        """
        rho = reduction_ratio(loss, new_loss, proposal.predicted, hides)
        accepted = rho is None or rho >= self.reject_below
        if proposal.bounded if rho is None else rho >= GOOD:
            self.radius = min(2 * self.radius, self.max_radius)
        elif rho is not None and rho < POOR:
            share = abs(proposal.along)
            if self.relative and not accepted and share > 0.0:
                self.radius = min(self.radius, share)  # otherwise the same step may come again
            self.tighten()
        if accepted and self.momentum and proposal.norm > 0:
            self.last = proposal.step
        return accepted, rho

    def tighten(self) -> None:
        """Halves the radius."""
        self.radius = max(self.radius / 2, self.min_radius)
