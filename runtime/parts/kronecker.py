"""Block-diagonal Kronecker curvature with a moving average and a schedule.

Factors are gathered every few updates: during burn-in at each one, averaged plainly, so that the
average starts without bias; then F ← θF + (1 − θ)F_batch (Martens & Grosse 2015, section 5).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...compiler.curvature.factors import KINDS, KroneckerLayer
from ...compiler.graph.errors import NewtritonError
from ...compiler.graph.options import check_count, check_flag, check_number, check_option
from ..model.factors import (
    DiagonalFactors,
    Factors,
    KroneckerFactors,
    MeanFactors,
    matrix,
    sides,
    tensors,
    write_matrix,
)
from ..model.linearization import Linearization
from ..model.model import Model
from .protocols import Tag
from .state import Maybe, Number, Random, Shaped, copied, seeded

INPUTS = ("gram", "mean", "mean-first")


class KroneckerCurvature:
    """C ≈ blockdiag(A ⊗ G), diagonal blocks for parameters without a Kronecker rule.

    factors: averages by layer. gathered: how often they have been refreshed.

    Args:
        model: whose curvature it is.
        kind: of the factors, see `Linearization.kronecker_factors`.
        samples: label draws per input.
        moving_average: θ.
        every: updates between two gatherings, after burn-in.
        burn_in: first updates, each of them gathered.
        seed: of the labels that are drawn.
        inputs: "gram" keeps A; "mean" the mean of each layer's inputs, E[a]E[a]ᵀ standing for A
            (EA-CG, eq. 11b); "mean-first" does so in the first layer alone (eq. 13).
        apart: whether the bias is uncoupled from the weights where the mean is kept.
    """

    tags = frozenset({Tag.SEMIDEFINITE, Tag.KRONECKER})

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
        inputs: str = "gram",
        apart: bool = False,
    ) -> None:
        check_option("kind", kind, KINDS)
        check_option("inputs", inputs, INPUTS)
        self.model, self.kind, self.samples = model, kind, check_count("samples", samples)
        self.moving_average = check_number("moving_average", moving_average, 0.0, below=1.0)
        self.every = check_count("every", every)
        self.burn_in = check_count("burn_in", burn_in, 0)
        self.apart = check_flag("apart", apart)
        self.generator = seeded(model, seed)
        layers = [b.layer for b in model.blocks if isinstance(b, KroneckerLayer)]
        self.means = {"gram": [], "mean": layers, "mean-first": layers[:1]}[inputs]
        self.factors: dict[str, Factors] = {}
        self.updates = self.gathered = 0

    @property
    def name(self) -> str:
        """The kind of its factors."""
        return self.kind

    @property
    def burning_in(self) -> bool:
        """Whether the last refresh belongs to the burn-in."""
        return self.updates <= self.burn_in

    def update(self, lin: Linearization) -> bool:
        """Gathers factors where the schedule asks for it; False where they are not finite.

        Factors that are not finite are left out, and the averages stay as they were.
        """
        due = self.updates < self.burn_in or self.updates % self.every == 0 or not self.factors
        if due:
            means = {"means": self.means} if self.means else {}
            new = lin.kronecker_factors(self.kind, self.samples, self.generator, **means)
            if not all(torch.isfinite(t).all() for f in new.values() for t in tensors(f).values()):
                return False
            self._average(new)
            self.gathered += 1
        self.updates += 1
        return True

    def _average(self, new: Mapping[str, Factors]) -> None:
        burning_in = self.updates < self.burn_in
        weight = 1.0 / (self.gathered + 1) if burning_in else 1.0 - self.moving_average
        for layer, factors in new.items():
            if layer not in self.factors:
                apart = isinstance(factors, MeanFactors) and self.apart
                self.factors[layer] = replace(factors, apart=True) if apart else factors
                continue
            for name, average in tensors(self.factors[layer]).items():
                average.lerp_(tensors(factors)[name], weight)

    def mv(self, v: Tensor) -> Tensor:
        """C v for a flat vector: G V A per layer, d⊙v on diagonal blocks."""
        if not self.factors:
            raise NewtritonError("the curvature has no factors yet: call update(lin)")
        result = torch.zeros_like(v)
        source, target = self.model.layout.views(v), self.model.layout.views(result)
        for block in self.model.blocks:
            factors = self.factors[block.layer]
            if isinstance(block, KroneckerLayer) and not isinstance(factors, DiagonalFactors):
                product = factors.G @ factors.times_inputs(matrix(block, source))
                write_matrix(block, target, product)
            elif isinstance(factors, DiagonalFactors):
                for name, diagonal in factors.diagonal.items():
                    torch.mul(diagonal, source[name], out=target[name])
        return result

    def state_spec(self, model: Model) -> Mapping[str, Any]:
        """Averages by layer, counts, the generator."""
        layers: dict[str, Any] = {}
        views = model.layout.views(model.params)
        for block in model.blocks:
            if isinstance(block, KroneckerLayer):
                lead, d, o = sides(block, views)
                g = Shaped((*lead, o, o), model.dtype)
                if block.layer in self.means:
                    mean = Shaped((*lead, d - (block.bias is not None)), model.dtype)
                    layers[block.layer] = {"mean": mean, "G": g}
                else:
                    layers[block.layer] = {"A": Shaped((*lead, d, d), model.dtype), "G": g}
            else:
                shapes = {n: Shaped(tuple(views[n].shape), model.dtype) for n in block.names}
                layers[block.layer] = shapes
        counts = {"updates": Number(int, 0), "gathered": Number(int, 0)}
        return {"factors": Maybe(layers), **counts, "generator": Random(self.generator)}

    def state_dict(self) -> dict[str, Any]:
        """Averages, counts and the generator: what the coming updates depend on."""
        return {
            "factors": {layer: copied(tensors(f)) for layer, f in self.factors.items()},
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
            saved = copied(state["factors"][block.layer])
            if not isinstance(block, KroneckerLayer):
                self.factors[block.layer] = DiagonalFactors(saved)
                continue
            rest = (saved["G"], block.kernel, block.bias is not None)
            if block.layer in self.means:
                factors = MeanFactors(saved["mean"], *rest, apart=self.apart)
            else:
                factors = KroneckerFactors(saved["A"], *rest)
            self.factors[block.layer] = factors
