"""Block-diagonal Kronecker curvature with a moving average and a schedule.

Factors are gathered every few updates: during burn-in at each one, averaged plainly, so that the
average starts without bias; then F ← θF + (1 − θ)F_batch (Martens & Grosse 2015, section 5).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..compiler.errors import NewtritonError
from ..compiler.factors import KINDS, Block
from .checks import check_option
from .factors import DiagonalFactors, KroneckerFactors, matrix, tensors, write_matrix
from .linearization import Linearization
from .model import Model


class KroneckerCurvature:
    """C ≈ blockdiag(A ⊗ G), diagonal blocks for parameters without a Kronecker rule.

    factors: averages by layer. gathered: how often they have been refreshed.

    Args:
        model: whose curvature it is.
        kind: "kfac" or "empirical", see `Linearization.kronecker_factors`.
        samples: label draws per input.
        moving_average: θ.
        every: updates between two gatherings, after burn-in.
        burn_in: first updates, each of them gathered.
        seed: of the labels that are drawn.
    """

    def __init__(
        self,
        model: Model,
        kind: str = "kfac",
        *,
        samples: int = 1,
        moving_average: float = 0.95,
        every: int = 1,
        burn_in: int = 1,
        seed: int = 0,
    ) -> None:
        check_option("kind", kind, KINDS)
        if not 0.0 <= moving_average < 1.0:
            raise NewtritonError(f"moving_average is {moving_average!r}: give a number in [0, 1)")
        if every < 1 or burn_in < 0:
            raise NewtritonError(f"every is {every} and burn_in {burn_in}: give at least 1 and 0")
        self.model, self.kind, self.samples = model, kind, samples
        self.moving_average, self.every, self.burn_in = moving_average, every, burn_in
        self.generator = torch.Generator(device=model.device).manual_seed(seed)
        self.factors: dict[str, KroneckerFactors | DiagonalFactors] = {}
        self.updates = self.gathered = 0

    def update(self, lin: Linearization) -> bool:
        """Gathers factors where the schedule asks for it; False where they are not finite.

        Factors that are not finite are left out, and the averages stay as they were.
        """
        due = self.updates < self.burn_in or self.updates % self.every == 0 or not self.factors
        if due:
            new = lin.kronecker_factors(self.kind, self.samples, self.generator)
            if not all(torch.isfinite(t).all() for f in new.values() for t in tensors(f).values()):
                return False
            self._average(new)
            self.gathered += 1
        self.updates += 1
        return True

    def _average(self, new: Mapping[str, KroneckerFactors | DiagonalFactors]) -> None:
        burning_in = self.updates < self.burn_in
        weight = 1.0 / (self.gathered + 1) if burning_in else 1.0 - self.moving_average
        for layer, factors in new.items():
            if layer not in self.factors:
                self.factors[layer] = factors
                continue
            for name, average in tensors(self.factors[layer]).items():
                average.lerp_(tensors(factors)[name], weight)

    def mv(self, v: Tensor) -> Tensor:
        """C v for a flat vector: G V A per layer, d⊙v on diagonal blocks."""
        result = torch.zeros_like(v)
        source, target = self.model.layout.views(v), self.model.layout.views(result)
        for block in self.model.blocks:
            factors = self.factors[block.layer]
            if isinstance(block, Block) and isinstance(factors, KroneckerFactors):
                write_matrix(block, target, factors.G @ matrix(block, source) @ factors.A_stored)
            elif isinstance(factors, DiagonalFactors):
                for name, diagonal in factors.diagonal.items():
                    torch.mul(diagonal, source[name], out=target[name])
        return result

    def state_dict(self) -> dict[str, Any]:
        """Averages, counts and the generator: what the coming updates depend on."""
        return {
            "factors": {
                k: {n: t.clone() for n, t in tensors(f).items()} for k, f in self.factors.items()
            },
            "updates": self.updates,
            "gathered": self.gathered,
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave, bit for bit."""
        self.updates, self.gathered = state["updates"], state["gathered"]
        self.generator.set_state(state["generator"].cpu())
        self.factors = {}
        for block in self.model.blocks if state["factors"] else ():
            saved = {n: t.clone() for n, t in state["factors"][block.layer].items()}
            if isinstance(block, Block):
                self.factors[block.layer] = KroneckerFactors(
                    saved["A"], saved["G"], block.kernel, block.bias is not None
                )
            else:
                self.factors[block.layer] = DiagonalFactors(saved)
