"""Solvers of (C + damping) x = g on Kronecker curvature: a value, a status, statistics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..compiler.errors import NewtritonError
from ..compiler.factors import Block
from .factors import KroneckerFactors, matrix, tensors, write_matrix

if TYPE_CHECKING:
    from .curvature import KroneckerCurvature

RETRIES = 10  # of a factorisation, each with ten times the damping


class Status(Enum):
    """How a solve ended."""

    SOLVED = "solved"
    DAMPING_RAISED = "a factor was not positive definite: its damping was raised"
    FAILED = "a factor could not be factorised at any damping"


@dataclass(frozen=True)
class Solution:
    """x ≈ (C + damping)⁻¹ g."""

    x: Tensor
    status: Status
    statistics: dict[str, int] = field(default_factory=dict)


def balance(a: Tensor, g: Tensor) -> Tensor:
    """π = √[(tr A/dim A) / (tr G/dim G)], one per group; 1 where either trace is not positive."""
    mean_a, mean_g = _mean_diagonal(a), _mean_diagonal(g)
    return torch.where((mean_a > 0) & (mean_g > 0), (mean_a / mean_g).sqrt(), 1.0)


def _mean_diagonal(factor: Tensor) -> Tensor:
    return factor.diagonal(dim1=-2, dim2=-1).double().mean(-1)


class KFI:
    """Kronecker-factored inverse: (A + π√γ I)⁻¹ ⊗ (G + √γ/π I)⁻¹ by Cholesky factors.

    γ is the additive damping, weight decay included (Martens & Grosse 2015, section 6.3). A pair
    that is not positive definite is tried again with ten times the damping, and with no less than
    what rounding asks for.

    Args:
        every: refreshes of the curvature between two factorisations.
        pi: False adds γ to both factors, as FITRE's code does.
    """

    def __init__(self, every: int = 1, pi: bool = True) -> None:
        if every < 1:
            raise NewtritonError(f"every is {every}: give at least 1")
        self.every, self.pi = every, pi
        self._cholesky: dict[str, dict[str, Tensor]] = {}
        self._made_at = (-1, math.nan)  # refreshes of the curvature, damping
        self.factorisations = self.retries = 0

    def solve(self, curvature: KroneckerCurvature, damping: float, g: Tensor) -> Solution:
        """X = (G + …)⁻¹ M (A + …)⁻¹ per layer; g/(d + γ) on diagonal blocks."""
        if not curvature.factors:
            raise NewtritonError("the curvature has no factors yet: call curvature.update(lin)")
        refreshes, made_for = self._made_at
        retries = 0
        if damping != made_for or curvature.gathered - refreshes >= self.every:
            self.factorisations += 1
            made = self._factorise(curvature, damping)
            if made is None:
                return Solution(torch.zeros_like(g), Status.FAILED, {"retries": RETRIES})
            self._cholesky, retries = made
            self._made_at = (curvature.gathered, damping)
            self.retries += retries
        x = torch.empty_like(g)
        source, target = curvature.model.layout.views(g), curvature.model.layout.views(x)
        for block in curvature.model.blocks:
            if isinstance(block, Block):
                lower = self._cholesky[block.layer]
                right = torch.cholesky_solve(matrix(block, source), lower["G"])
                write_matrix(block, target, torch.cholesky_solve(right.mT, lower["A"]).mT)
            else:
                for name, diagonal in tensors(curvature.factors[block.layer]).items():
                    torch.div(source[name], diagonal + damping, out=target[name])
        status = Status.DAMPING_RAISED if retries else Status.SOLVED
        return Solution(x, status, {"retries": retries})

    def _factorise(
        self, curvature: KroneckerCurvature, damping: float
    ) -> tuple[dict[str, dict[str, Tensor]], int] | None:
        result, retries = {}, 0
        for layer, factors in curvature.factors.items():
            if not isinstance(factors, KroneckerFactors):
                continue
            a, g = factors.A_stored, factors.G
            pi = balance(a, g) if self.pi else torch.ones_like(_mean_diagonal(a))
            strength = math.sqrt(damping) if self.pi else damping
            growth = math.sqrt(10.0) if self.pi else 10.0
            for retry in range(RETRIES + 1):
                if (lower := _pair(a, g, pi * strength, strength / pi)) is not None:
                    result[layer], retries = lower, retries + retry
                    break
                strength = max(growth * strength, _rounding(a, g))
            else:
                return None
        return result, retries

    def state_dict(self) -> dict[str, Any]:
        """The Cholesky factors in use, and what they were made for."""
        factors = {k: {n: t.clone() for n, t in pair.items()} for k, pair in self._cholesky.items()}
        counts = {"factorisations": self.factorisations, "retries": self.retries}
        return {"cholesky": factors, "made_at": self._made_at, **counts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave, bit for bit."""
        saved = state["cholesky"].items()
        self._cholesky = {k: {n: t.clone() for n, t in pair.items()} for k, pair in saved}
        self._made_at = tuple(state["made_at"])
        self.factorisations, self.retries = state["factorisations"], state["retries"]


def _rounding(a: Tensor, g: Tensor) -> float:
    """√γ that stands to the factors as rounding error does: where to start when γ is 0."""
    size = (_mean_diagonal(a) * _mean_diagonal(g)).abs().sqrt().max()
    return torch.finfo(a.dtype).eps * float(size)


def _pair(a: Tensor, g: Tensor, on_a: Tensor, on_g: Tensor) -> dict[str, Tensor] | None:
    """Cholesky factors of the damped pair; None where either has none."""
    lower_a, lower_g = _cholesky(a, on_a), _cholesky(g, on_g)
    return None if lower_a is None or lower_g is None else {"A": lower_a, "G": lower_g}


def _cholesky(factor: Tensor, damping: Tensor) -> Tensor | None:
    """Lower Cholesky factor of factor + damping·I (one per group); None where it has none."""
    damped = factor.clone()
    damped.diagonal(dim1=-2, dim2=-1).add_(damping.to(factor.dtype).unsqueeze(-1))
    lower, info = torch.linalg.cholesky_ex(damped)
    return None if bool(info.any()) or not bool(torch.isfinite(lower).all()) else lower
