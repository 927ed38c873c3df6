"""Conjugate gradients on each block by itself: P ↦ C_l P + γP, without a factorisation.

On Kronecker factors that is P ↦ G P A + γP. On factors that keep the mean of the inputs it is EA-CG
(Chen, Chou & Chang 2018, eq. 11b), whose product costs O² + 2·O·D a layer; on full ones it is the
paper's CG (eq. 11a).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from ..parts.block import BlockDiagonal, Damped, Factorisation
from ..parts.protocols import LinearSolver, Solution, Status, blocks_of
from ..parts.tags import Tag
from ..vectors import System, Vectors
from .cg import Stop, conjugate_gradients_on_each

if TYPE_CHECKING:
    from ..parts.protocols import Curvature


@dataclass(frozen=True)
class IterativeInverse:
    """The inverse of each damped block by conjugate gradients; diagonal blocks are divided.

    Attributes:
        blocks: what is inverted.
        damping: γ.
        stop: limits and tolerances in a layer.
        vectors: what computes on flat vectors.
    """

    blocks: BlockDiagonal
    damping: float
    stop: Stop
    vectors: Vectors

    def solve(self, g: Tensor, radius: float | None = None) -> Solution:
        """Returns x, the status of the worst layer, and `cg_iterations` of all layers together."""
        blocks, parts = self.blocks.held, self.blocks.parts(g)
        divided = [Tag.DIAGONAL in block.tags for block in blocks]
        systems = [
            (block.mv, System(m, block.share(self.damping)))
            for block, m, divide in zip(blocks, parts, divided, strict=True)
            if not divide
        ]
        found = conjugate_gradients_on_each(systems, self.stop, self.vectors)
        iterated = iter(found)
        x = [
            block.solve(Factorisation(Damped.WHOLE), block.share(self.damping), m)
            if divide
            else next(iterated).x
            for block, m, divide in zip(blocks, parts, divided, strict=True)
        ]
        statuses = [Status.SOLVED, *(solution.status for solution in found)]
        severity = max(status.severity for status in statuses)
        iterations = sum(solution.statistics["cg_iterations"] for solution in found)
        severities, counts = zip(*self.blocks.agree(severity, iterations), strict=True)
        worst = next(status for status in Status if status.severity == max(severities))
        return Solution(self.blocks.assembled(x, g), worst, {"cg_iterations": int(sum(counts))})


class BlockCG(LinearSolver):
    """Solves (A ⊗ G + γI) x = g per layer by conjugate gradients; diagonal blocks are divided.

    Args:
        limit: the most iterations in a layer, ≥ 1.
        tolerance: the relative residual ‖r‖/‖g‖ in a layer at which to stop, 0 ≤ tolerance < 1.

    Examples:
        >>> import torch
        >>> import newtriton as nt
        >>> model = nt.compile(nt.Linear(3), (3,), nt.CrossEntropyLoss(), device="cpu")
        >>> optimizer = nt.SecondOrder(model, nt.KroneckerCurvature(model), nt.BlockCG(limit=3))
        >>> 1 <= optimizer.step(torch.eye(3), torch.arange(3)).cg_iterations <= 3
        True
    """

    name = "cg"
    needs = frozenset({Tag.BLOCKS})

    def __init__(self, limit: int = 20, tolerance: float = 1e-2) -> None:
        self.stop = Stop(limit, tolerance)

    def prepare(self, curvature: Curvature, damping: float) -> IterativeInverse:
        """Returns the inverse; nothing is factorised.

        Raises:
            NewtritonError: the curvature has no blocks.
        """
        return IterativeInverse(blocks_of(curvature), damping, self.stop, curvature.model.vectors)


class MeanCG(BlockCG):
    """EA-CG: `BlockCG` on factors that keep the mean of the inputs; others are refused.

    Examples:
        >>> import torch
        >>> import newtriton as nt
        >>> model = nt.compile(nt.Linear(3), (3,), nt.CrossEntropyLoss(), device="cpu")
        >>> curvature = nt.KroneckerCurvature(model, "pch-1", inputs="mean", apart=True)
        >>> optimizer = nt.SecondOrder(model, curvature, nt.MeanCG(limit=10), nt.Fixed(0.1))
        >>> optimizer.step(torch.eye(3), torch.arange(3)).accepted
        True
    """

    name = "ea-cg"
    needs = frozenset({Tag.BLOCKS, Tag.MEANS})
