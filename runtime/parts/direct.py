"""Direct solvers of (C + damping) x = g on Kronecker blocks: a value, a status, statistics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from ...compiler.curvature.factors import KroneckerLayer
from ...compiler.graph.errors import NewtritonError
from ...compiler.graph.options import check_count, check_flag
from ..model.factors import KroneckerFactors, MeanFactors, matrix, sides, tensors, write_matrix
from .factorised import (
    Saved,
    diagonalise,
    diagonalised_spec,
    factorise,
    factorised_spec,
    mean_diagonal,
    solve,
    solve_spectrum,
    spectrum,
)
from .protocols import Solution, Status
from .state import Maybe, Number, copied

if TYPE_CHECKING:
    from ..model.model import Model
    from .kronecker import KroneckerCurvature

RETRIES = 10  # of a factorisation, each with ten times the damping


def balance(factors: KroneckerFactors | MeanFactors) -> Tensor:
    """π = √[(tr A/dim A) / (tr G/dim G)], one per group; 1 where either trace is not positive."""
    mean_a, mean_g = mean_diagonal(factors)
    return torch.where((mean_a > 0) & (mean_g > 0), (mean_a / mean_g).sqrt(), 1.0)


class _Direct:
    """Factorises every layer by a schedule, and keeps the result until the next time.

    Args:
        every: refreshes of the curvature between two factorisations; during the curvature's burn-in
            each refresh is followed by one.
    """

    bounded = False
    damped: ClassVar[bool]  # whether the damping is part of the factorisation

    def __init__(self, every: int = 1) -> None:
        self.every = check_count("every", every)
        self._kept: dict[str, Saved] = {}
        self._made_at = (-1, math.nan)  # refreshes of the curvature, damping
        self.factorisations = self.retries = 0

    def _factorise(
        self, curvature: KroneckerCurvature, damping: float
    ) -> tuple[dict[str, Saved], int] | None:
        """What to keep of each layer, and how often damping was raised; None where none serves."""
        raise NotImplementedError

    def _apply(self, kept: Saved, damping: float, m: Tensor) -> tuple[Tensor, int] | None:
        """A layer's part of x, and how often damping was raised; None where none serves."""
        raise NotImplementedError

    def _is_due(self, curvature: KroneckerCurvature, damping: float) -> bool:
        refreshes, made_for = self._made_at
        new = curvature.gathered - refreshes
        due = refreshes < 0 or new >= (1 if curvature.burning_in else self.every)
        return due or (self.damped and damping != made_for)

    def solve(self, curvature: KroneckerCurvature, damping: float, g: Tensor) -> Solution:
        """One matrix equation per layer; g/(d + γ) on diagonal blocks."""
        if not curvature.factors:
            raise NewtritonError("the curvature has no factors yet: call curvature.update(lin)")
        retries = 0
        if self._is_due(curvature, damping):
            self.factorisations += 1
            made = self._factorise(curvature, damping)
            if made is None:
                return _failed(g)
            self._kept, retries = made
            self._made_at = (curvature.gathered, damping)
        x = torch.empty_like(g)
        source, target = curvature.model.layout.views(g), curvature.model.layout.views(x)
        for block in curvature.model.blocks:
            if isinstance(block, KroneckerLayer):
                found = self._apply(self._kept[block.layer], damping, matrix(block, source))
                if found is None:
                    return _failed(g)
                write_matrix(block, target, found[0])
                retries += found[1]
            else:
                for name, diagonal in tensors(curvature.factors[block.layer]).items():
                    torch.div(source[name], diagonal + damping, out=target[name])
        self.retries += retries
        status = Status.DAMPING_RAISED if retries else Status.SOLVED
        return Solution(x, status, {"retries": retries})

    def _layer_spec(self, lead: tuple[int, ...], d: int, o: int, dtype: torch.dtype) -> Any:
        """What is kept of a layer whose factors are D×D and O×O."""
        raise NotImplementedError

    def state_spec(self, model: Model) -> Mapping[str, Any]:
        """What is kept of each layer, and counts."""
        views = model.layout.views(model.params)
        layers = {
            b.layer: self._layer_spec(*sides(b, views), model.dtype)
            for b in model.blocks
            if isinstance(b, KroneckerLayer)
        }
        made_at = {"refreshes": Number(int), "damping": Number()}
        counts = {"factorisations": Number(int, 0), "retries": Number(int, 0)}
        return {"kept": Maybe(layers), "made_at": Maybe(made_at), **counts}

    def state_dict(self) -> dict[str, Any]:
        """The factorisations in use, and what they were made for."""
        refreshes, damping = self._made_at
        made_at = {"refreshes": refreshes, "damping": damping} if self._kept else None
        counts = {"factorisations": self.factorisations, "retries": self.retries}
        return {"kept": copied(self._kept), "made_at": made_at, **counts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave, bit for bit."""
        self._kept = copied(state["kept"])
        made_at = state["made_at"]
        self._made_at = (made_at["refreshes"], made_at["damping"]) if made_at else (-1, math.nan)
        self.factorisations, self.retries = state["factorisations"], state["retries"]


def _failed(g: Tensor) -> Solution:
    return Solution(torch.zeros_like(g), Status.FAILED, {"retries": RETRIES})


class KFI(_Direct):
    """Kronecker-factored inverse: (A + π√γ I)⁻¹ ⊗ (G + √γ/π I)⁻¹ by Cholesky factors.

    γ is the additive damping, weight decay included (Martens & Grosse 2015, section 6.3). A pair
    that is not positive definite is tried again with ten times the damping, and with no less than
    what rounding asks for. Where the mean of the inputs stands for A, its inverse is Sherman and
    Morrison's (EA-CG, eq. 13).

    Args:
        every: refreshes of the curvature between two factorisations.
        pi: False adds γ to both factors, as FITRE's code does.
    """

    name = "kfi"
    damped = True

    def __init__(self, every: int = 1, pi: bool = True) -> None:
        super().__init__(every)
        self.pi = check_flag("pi", pi)

    def _factorise(
        self, curvature: KroneckerCurvature, damping: float
    ) -> tuple[dict[str, Saved], int] | None:
        result, retries = {}, 0
        growth = math.sqrt(10.0) if self.pi else 10.0
        for layer, factors in curvature.factors.items():
            if not isinstance(factors, (KroneckerFactors, MeanFactors)):
                continue
            pi = balance(factors)
            pi = pi if self.pi else torch.ones_like(pi)
            strength = math.sqrt(damping) if self.pi else damping
            for retry in range(RETRIES + 1):
                if (kept := factorise(factors, pi * strength, strength / pi)) is not None:
                    result[layer], retries = kept, retries + retry
                    break
                strength = max(growth * strength, _rounding(factors))
            else:
                return None
        return result, retries

    def _apply(self, kept: Saved, damping: float, m: Tensor) -> tuple[Tensor, int] | None:
        return solve(kept, m), 0

    def _layer_spec(self, lead: tuple[int, ...], d: int, o: int, dtype: torch.dtype) -> Any:
        return factorised_spec(lead, d, o, dtype)


def _rounding(factors: KroneckerFactors | MeanFactors) -> float:
    """√γ that stands to the factors as rounding error does: where to start when γ is 0."""
    mean_a, mean_g = mean_diagonal(factors)
    return torch.finfo(factors.G.dtype).eps * float((mean_a * mean_g).abs().sqrt().max())


class Eigen(_Direct):
    """(A ⊗ G + γI)⁻¹ without KFI's approximation, by eigenvectors of both: four products a layer.

    A change of damping asks for no new factorisation. Where an eigenvalue of a damped block is not
    positive, the block's damping is raised tenfold until all are above rounding.

    Args:
        every: refreshes of the curvature between two factorisations.
    """

    name = "eigen"
    damped = False

    def _factorise(
        self, curvature: KroneckerCurvature, damping: float
    ) -> tuple[dict[str, Saved], int] | None:
        result = {}
        for layer, factors in curvature.factors.items():
            if isinstance(factors, (KroneckerFactors, MeanFactors)):
                if (kept := diagonalise(factors)) is None:
                    return None
                result[layer] = kept
        return result, 0

    def _apply(self, kept: Saved, damping: float, m: Tensor) -> tuple[Tensor, int] | None:
        values = spectrum(kept)
        low, high = float(values.min()), float(values.abs().max())
        if kept["A"].shape[-2] > kept["A"].shape[-1]:
            low = min(low, 0.0)  # outside the range of A
        floor = max(torch.finfo(values.dtype).eps * high, torch.finfo(values.dtype).tiny)
        for retry in range(RETRIES + 1):
            if low + damping > (floor if retry else 0.0):
                return solve_spectrum(kept, damping, m), retry
            damping = 10 * max(damping, floor)
        return None

    def _layer_spec(self, lead: tuple[int, ...], d: int, o: int, dtype: torch.dtype) -> Any:
        return diagonalised_spec(lead, d, o, dtype)
