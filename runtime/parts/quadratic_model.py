"""Step rules without a trust region: a fixed rate, and the quadratic model of K-FAC and KFRA."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...compiler.graph.options import check_count, check_flag, check_number, check_option
from ...compiler.programs import MATRICES
from .protocols import Point, Proposal
from .state import Attributes, Maybe, Number, Shaped

if TYPE_CHECKING:
    from ..model.model import Model

Matrix = NDArray[np.float64]
POOR, GOOD = 0.25, 0.75  # ρ below which damping grows, and above which it shrinks


class Rule(Attributes):
    """What a rule does unless it says otherwise: one damping that stays, no line search."""

    def dampings(self, damping: float) -> tuple[float, ...]:
        """γ alone."""
        return (damping,)

    def shorten(self, loss: float, new_loss: float, proposal: Proposal) -> Proposal | None:
        """No line search."""
        return None

    def adapt(self, damping: float, rho: float | None) -> float:
        """γ as it was."""
        return damping

    def tighten(self) -> None:
        """Nothing to tighten."""


class Fixed(Rule):
    """s = −ηx + μ·(last step); taken wherever it leads to a finite loss.

    Args:
        lr: η.
        momentum: μ.
    """

    name = "fixed"
    radius = None
    STATE: ClassVar[tuple[str, ...]] = ("last",)

    def __init__(self, lr: float = 0.1, momentum: float = 0.0) -> None:
        self.lr = check_number("lr", lr, above=0.0)
        self.momentum = check_number("momentum", momentum, 0.0, below=1.0)
        self.last: Tensor | None = None

    def state_spec(self, model: Model) -> Mapping[str, Any]:
        """The last step, where there is momentum."""
        return {"last": Maybe(Shaped((model.layout.numel,), model.dtype))}

    def propose(self, direction: Tensor, lin: Point) -> Proposal:
        """The step; its prediction is the slope's, −gᵀs."""
        step = direction * -self.lr
        if self.last is not None:
            step.add_(self.last, alpha=self.momentum)
        products = lin.vectors.gram([step, lin.gradient])
        return Proposal(step, math.sqrt(products[0, 0]), -float(products[0, 1]))

    def judge(
        self, loss: float, new_loss: float, proposal: Proposal, eps: float
    ) -> tuple[bool, float | None]:
        """Accepted where the loss is finite; there is no ρ without a model."""
        accepted = math.isfinite(new_loss)
        if self.momentum:
            self.last = proposal.step if accepted else None
        return accepted, None


class QuadraticModel(Rule):
    """The minimiser of m(s) = gᵀs + ½sᵀ(B + λI)s, B exact, over a small span.

    K-FAC (Martens & Grosse 2015, sections 6.4–7): s = −αx + μ·(last step), α and μ from the exact
    2×2 model. KFRA (Botev et al. 2017, appendix B; their τ is λ) goes along x alone. Every `every`
    steps λ follows ρ: ×ω above ¾, ÷ω below ¼, ω = 0.95^every. Every `greedy` steps the solver's γ
    is the one of {ωγ, γ, γ/ω}, ω = 0.95^greedy, whose step has the lowest m.

    Two safeguards beyond the papers, for small batches. 0 ≤ μ ≤ 1: where a batch has almost no
    curvature along the last step, its model would repeat that step many times over. And a step that
    raises the loss of its own batch is refused.

    Args:
        damping: the first λ.
        momentum: whether the last step is searched too.
        model: B, the "ggn" or "hessian" of h.
        every: steps between two changes of λ.
        greedy: steps between two choices of γ.
    """

    name = "quadratic"
    radius = None
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
        check_option("model", model, MATRICES)
        self.damping = check_number("damping", damping, 0.0)
        self.momentum, self.model = check_flag("momentum", momentum), model
        self.every, self.greedy = check_count("every", every), check_count("greedy", greedy)
        self.steps = 0
        self.last: Tensor | None = None

    def state_spec(self, model: Model) -> Mapping[str, Any]:
        """λ, the count of steps, the last step."""
        last = Maybe(Shaped((model.layout.numel,), model.dtype))
        return {"damping": Number(float, 0.0), "steps": Number(int, 0), "last": last}

    def dampings(self, damping: float) -> tuple[float, ...]:
        """γ, and every `greedy` steps its neighbours."""
        if self.steps == 0 or self.steps % self.greedy:
            return (damping,)
        omega = 0.95**self.greedy
        return (damping, omega * damping, damping / omega)

    def propose(self, direction: Tensor, lin: Point) -> Proposal:
        """The model's minimiser; the prediction is NaN where the model has none."""
        vectors = [direction] if self.last is None else [direction, self.last]
        norms, slope, metric = along(vectors, lin)
        if norms[0] == 0.0:
            return Proposal(torch.zeros_like(direction), 0.0, 0.0)
        kept = norms > 0.0
        norms, slope, metric = norms[kept], slope[kept], metric[np.ix_(kept, kept)]
        units = [v / float(n) for v, n in zip(vectors, norms, strict=False)]
        forms = lin.quadratic_forms(units, self.model).double().cpu().numpy()
        forms += self.damping * metric
        c = minimise(slope, forms, metric)
        if c is None:
            return Proposal(torch.zeros_like(direction), 0.0, math.nan)
        if len(c) == 2 and not 0.0 <= c[1] <= norms[1]:
            c[1] = min(max(c[1], 0.0), norms[1])
            c[0] = -(slope[0] + forms[0, 1] * c[1]) / forms[0, 0]
        predicted = -float(slope @ c + 0.5 * c @ forms @ c)
        norm = math.sqrt(max(0.0, c @ metric @ c))
        return Proposal(lin.vectors.combination(c, units), norm, predicted)

    def judge(
        self, loss: float, new_loss: float, proposal: Proposal, eps: float
    ) -> tuple[bool, float | None]:
        """Accepted where model and loss are finite and the loss falls; λ follows ρ by schedule."""
        self.steps += 1
        rho = reduction_ratio(loss, new_loss, proposal.predicted, eps)
        accepted = rho >= 0.0
        if not accepted:
            self.tighten()
        elif self.steps % self.every == 0 and not POOR <= rho <= GOOD:
            omega = 0.95**self.every
            self.damping *= omega if rho > GOOD else 1.0 / omega
        if self.momentum:
            self.last = proposal.step if accepted else None
        return accepted, rho

    def tighten(self) -> None:
        """λ grows, and is not 0 any more."""
        self.damping = max(self.damping / 0.95**self.every, 1e-8)


def along(directions: Sequence[Tensor], lin: Point) -> tuple[Matrix, Matrix, Matrix]:
    """Norms of directions; the slopes gᵀu and inner products uᵢᵀuⱼ of their units."""
    products = lin.vectors.gram([lin.gradient, *directions])
    norms = np.sqrt(np.diag(products)[1:])
    with np.errstate(invalid="ignore", divide="ignore"):
        return norms, products[0, 1:] / norms, products[1:, 1:] / np.outer(norms, norms)


def reduction_ratio(loss: float, new_loss: float, predicted: float, eps: float) -> float:
    """ρ; −∞ where either side is not finite, 1 where the prediction is rounding error."""
    if not (math.isfinite(new_loss) and math.isfinite(predicted)):
        return -math.inf
    if abs(predicted) <= 10 * eps * abs(loss):
        return 1.0
    return (loss - new_loss) / predicted


def minimise(slope: Matrix, forms: Matrix, metric: Matrix) -> Matrix | None:
    """Coefficients of the minimiser of slopeᵀc + ½ cᵀ forms c; None where there is none.

    Directions that are dependent in the metric count once.
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
