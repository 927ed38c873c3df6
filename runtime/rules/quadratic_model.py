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
from .rule import GOOD, POOR, Matrix, ModelRule, reduction_ratio

if TYPE_CHECKING:
    from ..model.model import Model


class QuadraticModel(ModelRule):
    """The step that minimises m(s) = gᵀs + ½sᵀ(B + λI)s, B exact, over a small span.

    In K-FAC (Martens & Grosse 2015, sections 6.4–7) it is s = −αx + μ·(last step), α and μ from the
    exact 2×2 model. KFRA (Botev et al. 2017, appendix B; their τ is λ) goes along x alone. Every
    `every` steps λ follows ρ: ×ω above ¾, ÷ω below ¼, ω = 0.95^every. Every `greedy` steps the
    solver's γ is the one of {ωγ, γ, γ/ω}, ω = 0.95^greedy, whose step has the lowest m.

    Two safeguards beyond the papers, for small batches. 0 ≤ μ ≤ 1: where a batch has almost no
    curvature along the last step, its model would repeat that step many times over. And a step that
    raises the loss of its own batch is refused.

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
    """

    name = "quadratic"
    tags = frozenset()
    radius = lr = None
    STATE: ClassVar[tuple[str, ...]] = ("damping", "steps", "last")

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
        self.every, self.greedy = check_count("every", every), check_count("greedy", greedy)
        self.steps = 0
        self.last: Tensor | None = None

    def state_spec(self, model: Model) -> Mapping[str, Spec]:
        """Returns the specification of λ, the count of steps, and the last step."""
        last = Maybe(Shaped((model.layout.numel,), model.dtype))
        return {"damping": Number(float, 0.0), "steps": Number(int, 0), "last": last}

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
        predicted = -float(slope @ c + 0.5 * c @ forms @ c)
        norm = math.sqrt(max(0.0, c @ metric @ c))
        return Proposal(point.vectors.combination(c, units), norm, predicted)

    def judge(
        self, loss: float, new_loss: float, proposal: Proposal, hides: Hides
    ) -> tuple[bool, float | None]:
        """Accepts a step where the loss does not rise; every few steps λ follows ρ."""
        self.steps += 1
        rho = reduction_ratio(loss, new_loss, proposal.predicted, hides)
        accepted = rho is None or rho >= 0.0
        if not accepted:
            self.tighten()
        elif rho is not None and self.steps % self.every == 0 and not POOR <= rho <= GOOD:
            omega = 0.95**self.every
            self.damping *= omega if rho > GOOD else 1.0 / omega
        if self.momentum:
            self.last = proposal.step if accepted else None
        return accepted, rho

    def tighten(self) -> None:
        """Raises λ, which is not 0 any more."""
        self.damping = max(self.damping / 0.95**self.every, 1e-8)


def minimise(slope: Matrix, forms: Matrix, metric: Matrix) -> Matrix | None:
    """Returns the c that minimises slopeᵀc + ½ cᵀ forms c; None where there is none.

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
    values, vectors = np.linalg.eigh(basis.T @ forms @ basis)
    if not values[0] > 0.0:
        return None
    b = vectors.T @ (basis.T @ slope)
    return -basis @ (vectors @ (b / values))
