"""A damping that follows what the model of its step promises."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...compiler.graph.cost import flops
from ..parts.protocols import Averaging
from ..parts.tags import Tag

if TYPE_CHECKING:
    from ..model.model import Model
    from ..parts.protocols import Curvature, Solver
    from .noise import Noise

OMEGA = 0.95**20  # the ratio of neighbouring γ (Martens & Grosse 2015, section 6.6)
SMALL = 10**8  # operations of factorisations that are not waited for
SOONEST = 5  # steps between two choices of γ at first; later a quarter of all steps so far


class Following:
    """Says which γ are tried at a step: γ, or it and its neighbours ωγ and γ/ω.

    Steps with neighbours lie ever farther apart, and so far that their factorisations are a quarter
    of all work at most.

    Args:
        model: the model that is trained.
        curvature: the curvature that γ is added to.
        solver: the solver.
        noise: the noise of mini-batches, if steps are judged against it; γ is then no less than
            (1 − φ)/N, see `rules.noise`.

    Attributes:
        last: the last step at which neighbours were tried, 0 before the first.
    """

    def __init__(
        self, model: Model, curvature: Curvature, solver: Solver, noise: Noise | None
    ) -> None:
        self.model, self.curvature, self.solver, self.noise = model, curvature, solver, noise
        self.last = 0

    def dampings(self, damping: float, step: int, batch: int) -> tuple[float, ...]:
        """Returns the γ to try.

        Args:
            damping: γ as it is.
            step: the number of the step, from 1.
            batch: the number of samples that curvature is taken on.
        """
        waited = step - self.last
        if waited < max(SOONEST, step / 4) or waited < self._worth_waiting(batch):
            return (damping,)
        self.last, least = step, 0.0
        if self.noise is not None and isinstance(self.curvature, Averaging):
            least = (1.0 - self.noise.confirmed) * self.curvature.unseen
        tried = (damping, OMEGA * damping, damping / OMEGA)
        return tuple(dict.fromkeys(max(each, least) for each in tried))

    def _worth_waiting(self, batch: int) -> float:
        """Returns after how many steps three factorisations are a quarter of all work.

        Small ones take no longer than what the host does for a step.
        """
        blocks = self.curvature.blocks
        if blocks is None or not self.solver.needs & {Tag.BLOCKS}:
            return 0.0
        views = self.model.layout.views(self.model.params)
        dear = 3 * sum(block.operations(views) for block in blocks.blocks)
        if dear < SMALL:
            return 0.0
        step = 2 * flops(self.model.programs[True].linearize.graph, batch)  # forms and trials, too
        return 3.0 * dear / step
