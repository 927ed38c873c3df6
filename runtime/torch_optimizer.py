"""Any torch.optim optimizer over compiled gradients: the first-order baselines."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..compiler.errors import NewtritonError
from .model import Model
from .optimizer import Patience, StepReport


class TorchOptimizer:
    """`TorchOptimizer(model, torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True)`.

    The optimizer sees one flat parameter that shares its memory with `model.params`. Weight decay
    is the model's; a `weight_decay` given here comes on top. L-BFGS gets a closure.

    Args:
        model: what is trained.
        cls: a class of torch.optim.
        options: its arguments.
    """

    def __init__(self, model: Model, cls: type[torch.optim.Optimizer], **options: Any) -> None:
        self.model = model
        self.flat = torch.nn.Parameter(model.params, requires_grad=False)
        try:
            self.optimizer = cls([self.flat], **options)
        except (TypeError, ValueError) as error:
            raise NewtritonError(
                f"torch.optim.{cls.__name__} refuses {options}: {error}"
            ) from error
        self.patience = Patience()

    def step(self, x: Tensor, y: Tensor) -> StepReport:
        """One step on a batch; nothing changes where loss, gradient or new point is not finite."""
        model = self.model
        before = model.params.clone()
        loss, self.flat.grad, statistics = model.gradient(x, y)

        def report(status: str, accepted: bool) -> StepReport:
            norm = float((model.params - before).norm())
            lr = self.optimizer.param_groups[0].get("lr", math.nan)
            return StepReport(
                loss, None, accepted, norm, status, rejected=self.patience.rejected, lr=float(lr),
            )  # fmt: skip

        if (fault := self.patience.ran_out(loss, self.flat.grad)) is not None:
            return report(fault, accepted=False)
        if isinstance(self.optimizer, torch.optim.LBFGS):
            self.optimizer.step(lambda: self._closure(x, y))
        else:
            self.optimizer.step()
        if not bool(torch.isfinite(model.params).all()):
            model.params.copy_(before)
            return report("a step that is not finite", accepted=False)
        model.update_statistics(statistics)
        return report("stepped", accepted=True)

    @torch.no_grad()
    def _closure(self, x: Tensor, y: Tensor) -> Tensor:
        loss, self.flat.grad, _ = self.model.gradient(x, y)
        return torch.tensor(loss, dtype=torch.float64)

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's state and the count of rejected steps."""
        return {"optimizer": self.optimizer.state_dict(), "rejected": self.patience.rejected}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.patience.rejected = state["rejected"]
