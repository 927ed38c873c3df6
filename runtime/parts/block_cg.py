"""Conjugate gradients on each Kronecker block: P ↦ G P A + γP, no factorisation.

On factors that keep the mean of the inputs this is EA-CG (Chen, Chou & Chang 2018, eq. 11b), whose
product costs O² + 2·O·D a layer; on full ones it is the paper's CG (eq. 11a).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...compiler.curvature.factors import KroneckerLayer
from ...compiler.graph.errors import NewtritonError
from ..model.factors import DiagonalFactors, matrix, write_matrix
from ..vectors import System
from .cg import Stop, conjugate_gradients
from .protocols import Solution, Status
from .state import Attributes

if TYPE_CHECKING:
    from .kronecker import KroneckerCurvature


class BlockCG(Attributes):
    """(A ⊗ G + γI) x = g per layer by conjugate gradients; diagonal blocks are divided.

    Args:
        limit: most iterations in a layer.
        tolerance: of ‖r‖/‖g‖ in a layer.
    """

    name = "cg"
    bounded = False

    def __init__(self, limit: int = 20, tolerance: float = 1e-2) -> None:
        self.stop = Stop(limit, tolerance)

    def solve(self, curvature: KroneckerCurvature, damping: float, g: Tensor) -> Solution:
        """x; `cg_iterations` of all layers together, and the status of the worst of them."""
        if not curvature.factors:
            raise NewtritonError("the curvature has no factors yet: call curvature.update(lin)")
        x = torch.empty_like(g)
        source, target = curvature.model.layout.views(g), curvature.model.layout.views(x)
        iterations, statuses = 0, {Status.SOLVED}
        for block in curvature.model.blocks:
            factors = curvature.factors[block.layer]
            if isinstance(factors, DiagonalFactors):
                for name, diagonal in factors.diagonal.items():
                    torch.div(source[name], diagonal + damping, out=target[name])
                continue
            assert isinstance(block, KroneckerLayer)

            def product(p: Tensor, factors=factors) -> Tensor:
                return factors.G @ factors.times_inputs(p)

            system = System(matrix(block, source), damping)
            part = conjugate_gradients(product, system, self.stop, curvature.model.vectors)
            write_matrix(block, target, part.x)
            statuses.add(part.status)
            iterations += part.statistics["cg_iterations"]
        worst = max(statuses, key=list(Status).index)
        return Solution(x, worst, {"cg_iterations": iterations})


class MeanCG(BlockCG):
    """EA-CG: the same on factors that keep the mean of the inputs; others are refused."""

    name = "ea-cg"
