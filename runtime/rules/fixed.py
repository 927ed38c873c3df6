"""The step rule of a fixed rate, with momentum."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from ...compiler.graph.options import check_number
from ..parts.protocols import Hides, Point, Proposal
from ..parts.state import Maybe, Shaped, Spec
from ..parts.tags import Tag
from .rule import Rule

if TYPE_CHECKING:
    from ..model.model import Model


class Fixed(Rule):
    """The step s = −ηx + μ·(last step), taken wherever it leads to a finite loss.

    Args:
        lr: η > 0.
        momentum: μ, 0 ≤ μ < 1.
    """

    name = "fixed"
    needs = frozenset({Tag.SEMIDEFINITE})
    radius = matrix = None
    STATE: ClassVar[tuple[str, ...]] = ("last",)

    def __init__(self, lr: float = 0.1, momentum: float = 0.0) -> None:
        self.lr = check_number("lr", lr, above=0.0)
        self.momentum = check_number("momentum", momentum, 0.0, below=1.0)
        self.last: Tensor | None = None

    def state_spec(self, model: Model) -> Mapping[str, Spec]:
        """Returns the specification of the last step, which is there with momentum."""
        return {"last": Maybe(Shaped((model.layout.numel,), model.dtype))}

    def propose(self, direction: Tensor, point: Point) -> Proposal:
        """Returns the step; its prediction is the slope's, −gᵀs."""
        step = direction * -self.lr
        if self.last is not None:
            step.add_(self.last, alpha=self.momentum)
        products = point.vectors.gram([step, point.gradient])
        return Proposal(step, math.sqrt(products[0, 0]), -float(products[0, 1]))

    def judge(
        self, loss: float, new_loss: float, proposal: Proposal, hides: Hides
    ) -> tuple[bool, float | None]:
        """Accepts a step where the loss is finite; there is no ρ without a model."""
        accepted = math.isfinite(new_loss)
        if self.momentum:
            self.last = proposal.step if accepted else None
        return accepted, None
