"""What a step reports, and the count of steps that could not be made."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from ...compiler.graph.errors import NewtritonError
from ..model.statistics import variances
from ..reading import largest_of

if TYPE_CHECKING:
    from ..parts.protocols import Proposal

PATIENCE = 10  # steps in a row that could not be made, then an error
SEARCH_FAILED = "the line search found no step that lowers the loss enough"


@dataclass(frozen=True)
class StepReport:
    """What a step did.

    Attributes:
        loss: h before the step, weight decay included.
        new_loss: h at the point that was tried last; None where none was.
        accepted: whether the parameters have moved.
        step_norm: ‖s‖ of the step that was tried last.
        status: how the solve ended, or why no step was made, as a sentence.
        rho: (actual decrease)/(predicted decrease); None for a method without a model, and where
            both are rounding error, which says nothing.
        predicted: the model's decrease; None without one.
        radius: the trust region's radius after the step; None for a method without one.
        damping: γ after the step; None for a method without one.
        lr: the learning rate; None for a method without one.
        gain: φ, by which noise has shortened the step, see `rules.noise`; None where steps are not
            judged against noise.
        damping_retries: how often a factor's damping had to be raised.
        cg_iterations: iterations of conjugate gradients, in all layers together.
        halvings: how often a line search has shortened the step.
        rejected: steps in a row that could not be made: a loss, gradient or curvature that was not
            finite, or a solve that failed.

    Examples:
        >>> import torch
        >>> import newtriton as nt
        >>> model = nt.compile(nt.Linear(2), (3,), nt.MSELoss(), device="cpu")
        >>> report = nt.FITRE(model).step(torch.ones(4, 3), torch.zeros(4, 2))
        >>> report.accepted, report.new_loss < report.loss, report.rejected
        (True, True, 0)
    """

    loss: float
    new_loss: float | None
    accepted: bool
    step_norm: float
    status: str
    rho: float | None = None
    predicted: float | None = None
    radius: float | None = None
    damping: float | None = None
    lr: float | None = None
    gain: float | None = None
    damping_retries: int = 0
    cg_iterations: int = 0
    halvings: int = 0
    rejected: int = 0


class Patience:
    """Counts steps in a row that could not be made; gives up with an error after `PATIENCE`."""

    def __init__(self) -> None:
        self.rejected = 0

    def count(self, fault: str | None) -> None:
        """Notes what was wrong with a step, None where nothing was.

        Raises:
            NewtritonError: it was the last of `PATIENCE` steps in a row.
        """
        self.rejected = 0 if fault is None else self.rejected + 1
        if self.rejected >= PATIENCE:
            self.rejected = 0  # whoever goes on starts anew
            raise NewtritonError(
                f"{PATIENCE} steps in a row were refused, the last for this: {fault}. "
                "Look at the data, take smaller steps or start from other parameters"
            )


def not_finite(
    loss: float, gradient: Tensor, statistics: Sequence[Mapping[str, Tensor]] = ()
) -> str | None:
    """Returns what is not finite; None where everything is.

    Args:
        loss: h.
        gradient: its gradient.
        statistics: those of each batch, which running statistics would take in.
    """
    if not math.isfinite(loss):
        return f"loss {loss}"
    if not math.isfinite(largest_of(gradient)):
        return "a gradient that is not finite"
    spread = [x for of_batch in statistics for x in variances(of_batch)]
    if all(math.isfinite(largest_of(x)) for x in spread):
        return None
    return "a variance in batch norm that is not finite"


def refusal(loss: float, new_loss: float, proposal: Proposal) -> str:
    """Returns why a step that was tried has not been accepted.

    Args:
        loss: h before the step.
        new_loss: h after it.
        proposal: the step.
    """
    if not math.isfinite(new_loss):
        return f"the step was refused: it leads to a loss of {new_loss}"
    promised = loss - proposal.predicted
    return (
        f"the step was refused: it takes the loss from {loss:.6g} to {new_loss:.6g}, where its "
        f"model promises {promised:.6g}"
    )
