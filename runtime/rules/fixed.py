"""The step rule of a fixed rate, with momentum."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from ...compiler.graph.options import check_flag, check_number
from ..parts.protocols import Hides, Point, Proposal
from ..parts.state import Maybe, Number, Shaped, Spec
from ..parts.tags import Tag
from .rule import Rule

if TYPE_CHECKING:
    from ..model.model import Model


class Fixed(Rule):
    """The step s = −ηx + μ·(last step), taken wherever it leads to a finite loss.

    With `refuse`, a step that raises the loss of its own batch is refused, and η halved; each step
    that is taken doubles it again, up to what it was.

    Args:
        lr: η > 0.
        momentum: μ, 0 ≤ μ < 1.
        refuse: whether steps that raise the loss are refused.

    Attributes:
        lr: η as it is now.

    Examples:
        >>> import torch
        >>> import newtriton as nt
        >>> model = nt.compile(nt.Linear(3), (3,), nt.CrossEntropyLoss(), device="cpu")
        >>> rule = nt.Fixed(0.1, momentum=0.9)
        >>> optimizer = nt.SecondOrder(model, nt.KroneckerCurvature(model), nt.KFI(), rule)
        >>> optimizer.step(torch.eye(3), torch.arange(3)).lr
        0.1
    """

    name = "fixed"
    needs = frozenset({Tag.SEMIDEFINITE})
    radius = matrix = None
    STATE: ClassVar[tuple[str, ...]] = ("last", "lr")

    def __init__(self, lr: float = 0.1, momentum: float = 0.0, *, refuse: bool = False) -> None:
        self.lr = self.most = check_number("lr", lr, above=0.0)
        self.refuse = check_flag("refuse", refuse)
        self.momentum = check_number("momentum", momentum, 0.0, below=1.0)
        self.last: Tensor | None = None

    def state_spec(self, model: Model) -> Mapping[str, Spec]:
        """Returns the specification of η, and of the last step, which is there with momentum."""
        last = Maybe(Shaped((model.layout.numel,), model.dtype))
        return {"last": last, "lr": Number(float, 0.0)}

    def propose(self, direction: Tensor, point: Point) -> Proposal:
        """Returns the step; its prediction is the slope's, −gᵀs."""
        step = direction * -self.lr
        if self.last is not None:
            step.add_(self.last, alpha=self.momentum)
        watched = [] if self._watched is None else [self._watched]
        products = point.vectors.gram([step, point.gradient, *watched])
        if watched:
            self._watched, self._seen = None, (float(products[1, 2]), None)
        slope = float(products[0, 1])
        return Proposal(step, math.sqrt(products[0, 0]), -slope, slope, self.lr)

    def judge(
        self, loss: float, new_loss: float, proposal: Proposal, hides: Hides
    ) -> tuple[bool, float | None]:
        """Accepts a step where the loss is finite, and does not rise where that is asked for.

        There is no ρ without a model.
        """
        accepted = math.isfinite(new_loss)
        if self.refuse:
            accepted = accepted and (new_loss <= loss or hides(new_loss - loss))
            self.lr = min(2.0 * self.lr, self.most) if accepted else self.lr / 2.0
        if self.momentum:
            self.last = proposal.step if accepted else None
        return accepted, None
