"""The step rule of K-FAC and KFRA: the minimiser of an exact quadratic model over a small span."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from ...compiler.graph.options import check_count, check_flag, check_number, check_option
from ...compiler.programs import MATRICES
from ..parts.protocols import Hides, Point, Proposal
from ..parts.state import Maybe, Number, Shaped, Spec
from .refusals import grown, shrunk
from .rule import GOOD, POOR, Matrix, ModelRule, recovers, reduction_ratio

if TYPE_CHECKING:
    from ..model.model import Model

MOST = 10_000  # steps for which ω is no zero


class QuadraticModel(ModelRule):
    """The step that minimises m(s) = gᵀs + ½sᵀ(B + λI)s, B exact, over a small span.

    In K-FAC (Martens & Grosse 2015, sections 6.4–7) it is s = −αx + μ·(last step), α and μ from the
    exact 2×2 model. KFRA (Botev et al. 2017, appendix B; their τ is λ) goes along x alone. Every
    `every` steps λ follows ρ: ×ω above ¾, ÷ω below ¼, ω = 0.95^every. Every `greedy` steps the
    solver's γ is the one of {ωγ, γ, γ/ω}, ω = 0.95^greedy, whose step has the lowest m.

    Two safeguards beyond the papers, for small batches. 0 ≤ μ ≤ 1: where a batch has almost no
    curvature along the last step, its model would repeat that step many times over. And a step that
    raises the loss of its own batch is refused: λ becomes what would have told that loss, and grows
    by the n-th refusal in a row to λ·ω^−2ⁿ⁻¹ at least. γ grows so where no step could be made. Good
    steps take both back, half of the way each.

    Args:
        damping: the first λ, ≥ 0.
        momentum: whether the last step is searched too.
        model: which matrix B is, the "ggn" or "hessian" of h.
        every: steps between two changes of λ, ≥ 1.
        greedy: steps between two choices of γ, ≥ 1.

    Attributes:
        damping: λ as it is now.
        steps: how many steps have been judged.
        last: the last step, where it was accepted and there is momentum.
        refused: how many steps in a row have been refused.
        raised, gamma_raised: by which factors refusals have raised λ and γ.

    Examples:
        >>> import torch
        >>> import newtriton as nt
        >>> model = nt.compile(nt.Linear(3), (3,), nt.CrossEntropyLoss(), device="cpu")
        >>> rule = nt.QuadraticModel(0.1, momentum=False)
        >>> optimizer = nt.SecondOrder(model, nt.KroneckerCurvature(model), nt.KFI(), rule)
        >>> report = optimizer.step(torch.eye(3), torch.arange(3))
        >>> report.accepted, rule.steps
        (True, 1)
    """

    name = "quadratic"
    tags = frozenset()
    radius = lr = None
    STATE: ClassVar[tuple[str, ...]] = (
        *("damping", "steps", "last", "refused", "raised", "gamma_raised"),
    )

    def __init__(
        self,
        damping: float = 0.01,
        *,
        momentum: bool = True,
        model: str = "ggn",
        every: int = 5,
        greedy: int = 20,
    ) -> None:
        super().__init__()
        check_option("model", model, MATRICES)
        self.damping = check_number("damping", damping, 0.0)
        self.momentum, self.matrix = check_flag("momentum", momentum), model
        self.widths = (1, 2) if momentum else (1,)
        self.every = check_count("every", every, 1, MOST)
        self.greedy = check_count("greedy", greedy, 1, MOST)
        self.omega = 0.95**self.every
        self.steps = self.refused = 0
        self.raised = self.gamma_raised = 1.0
        self.last: Tensor | None = None

    def state_spec(self, model: Model) -> Mapping[str, Spec]:
        """Returns the specification of λ, the counts of steps, and the last step."""
        last = Maybe(Shaped((model.layout.numel,), model.dtype))
        raised = {name: Number(float, 1.0) for name in ("raised", "gamma_raised")}
        counts = {name: Number(int, 0) for name in ("steps", "refused")}
        return {"damping": Number(float, 0.0), "last": last, **counts, **raised}

    def dampings(self, damping: float) -> tuple[float, ...]:
        """Returns γ, and every `greedy` steps its neighbours as well."""
        if self.steps == 0 or self.steps % self.greedy:
            return (damping,)
        omega = 0.95**self.greedy
        return (damping, omega * damping, damping / omega)

    def span(self, direction: Tensor, point: Point) -> list[Tensor]:
        """Returns the direction, and the last step where there is one."""
        return [direction] if self.last is None else [direction, self.last]

    def propose(self, direction: Tensor, point: Point) -> Proposal:
        """Returns the model's minimiser; the prediction is NaN where the model has none."""
        units, norms, slope, metric, forms = self.measured(direction, point)
        if norms[0] == 0.0:
            return Proposal(torch.zeros_like(direction), 0.0, 0.0)
        if not np.isfinite(norms).all():
            return Proposal(torch.zeros_like(direction), 0.0, math.nan)
        kept = norms > 0.0
        units = [unit for unit, there in zip(units, kept, strict=True) if there]
        norms, slope = norms[kept], slope[kept]
        metric, forms = metric[np.ix_(kept, kept)], forms[np.ix_(kept, kept)]
        forms += self.damping * metric
        c = minimise(slope, forms, metric)
        if c is None:
            return Proposal(torch.zeros_like(direction), 0.0, math.nan)
        if len(c) == 2 and not 0.0 <= c[1] <= norms[1]:
            c[1] = min(max(c[1], 0.0), norms[1])
            c[0] = -(slope[0] + forms[0, 1] * c[1]) / forms[0, 0]
        with np.errstate(over="ignore", invalid="ignore"):
            predicted = -float(slope @ c + 0.5 * c @ forms @ c)
        norm = math.sqrt(max(0.0, c @ metric @ c))
        step, along = point.vectors.combination(c, units), -float(c[0] / norms[0])
        return Proposal(step, norm, predicted, float(slope @ c), along, bool(slope[0] < 0.0))

    def judge(
        self, loss: float, new_loss: float, proposal: Proposal, hides: Hides
    ) -> tuple[bool, float | None]:
        """Accepts a step where the loss does not rise; every few steps λ follows ρ."""
        self.steps += 1
        rho = reduction_ratio(loss, new_loss, proposal.predicted, hides)
        accepted = rho is None or rho >= 0.0
        if accepted:
            self.refused = 0
            self._follow(rho)
        else:
            self._refuse(self._fitted(new_loss - loss, proposal))
        if self.momentum:
            self.last = proposal.step if accepted else None
        return accepted, rho

    def _follow(self, rho: float | None) -> None:
        """Lets λ follow ρ, down at once where refusals have raised it."""
        if recovers(rho) and self.raised > 1.0:
            self.damping, self.raised = shrunk(self.damping, self.raised, 1.0 / self.omega)
        elif rho is not None and not POOR <= rho <= GOOD and self.steps % self.every == 0:
            self.damping *= self.omega if rho > GOOD else 1.0 / self.omega

    def _fitted(self, rise: float, proposal: Proposal) -> float:
        """Returns the λ at which the model tells how far the loss rises; 0 where none does."""
        missing = 2.0 * (rise + proposal.predicted)
        known = math.isfinite(missing) and proposal.norm > 0.0
        return self.damping + missing / proposal.norm**2 if known else 0.0

    def _refuse(self, least: float = 0.0) -> None:
        self.refused += 1
        self.damping, self.raised = grown(
            self.damping, self.raised, 1.0 / self.omega, self.refused, least
        )

    def adapt(self, damping: float, rho: float | None) -> float:
        """Returns γ, raised where no step could be made, and lowered by good steps afterwards."""
        base = 1.0 / self.omega
        if rho == -math.inf:
            damping, self.gamma_raised = grown(damping, self.gamma_raised, base, self.refused)
        elif recovers(rho) and self.gamma_raised > 1.0:
            damping, self.gamma_raised = shrunk(damping, self.gamma_raised, base)
        return damping

    def tighten(self) -> None:
        """Raises λ, which is not 0 any more."""
        self._refuse()


def minimise(slope: Matrix, forms: Matrix, metric: Matrix) -> Matrix | None:
    """Returns the c that minimises slopeᵀc + ½ cᵀ forms c; None where there is none, or no finite.

    Directions that are dependent in the metric count once.

    Args:
        slope: k inner products gᵀvᵢ.
        forms: k×k forms vᵢᵀBvⱼ.
        metric: k×k inner products vᵢᵀvⱼ.
    """
    if not (np.isfinite(slope).all() and np.isfinite(forms).all()):
        return None
    scales, axes = np.linalg.eigh(metric)
    kept = scales > 1e-7 * scales.max()
    basis = axes[:, kept] / np.sqrt(scales[kept])
    with np.errstate(over="ignore", invalid="ignore"):
        inside = basis.T @ forms @ basis
    if not np.isfinite(inside).all():
        return None
    values, vectors = np.linalg.eigh(inside)
    if not values[0] > 0.0:
        return None
    b = vectors.T @ (basis.T @ slope)
    return -basis @ (vectors @ (b / values))
