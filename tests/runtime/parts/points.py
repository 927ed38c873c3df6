"""A point with a quadratic model around it, for tests of step rules."""

from __future__ import annotations

import torch
from torch import Tensor

from newtriton.runtime.parts.protocols import Proposal, StepRule
from newtriton.runtime.vectors import Vectors

from ..stand_in import positive, seeded

EPS = torch.finfo(torch.float64).eps


class Point:
    """h = gᵀs + ½ sᵀCs around the origin, with C by name."""

    def __init__(self, n: int = 8, **curvatures: Tensor) -> None:
        self.curvatures = curvatures or {"ggn": positive(n), "hessian": positive(n, 4)}
        self.gradient = torch.randn(n, generator=seeded(2), dtype=torch.float64)
        self.objective, self.vectors = 0.0, Vectors()

    def quadratic_forms(self, vs: list[Tensor], curvature: str = "hessian") -> Tensor:
        v = torch.stack(list(vs))
        return v @ self.curvatures[curvature] @ v.T

    def hides(self, change: float) -> bool:
        return change <= EPS

    def model(self, s: Tensor, damping: float = 0.0, curvature: str = "ggn") -> float:
        c = self.curvatures[curvature]
        return float(self.gradient @ s + 0.5 * s @ c @ s + 0.5 * damping * s @ s)


def draw(seed: int, n: int = 8) -> Tensor:
    return torch.randn(n, generator=seeded(seed), dtype=torch.float64)


def judged(
    rule: StepRule, loss: float, new_loss: float, proposal: Proposal
) -> tuple[bool, float | None]:
    return rule.judge(loss, new_loss, proposal, lambda change: change <= 2 * EPS * abs(loss))
