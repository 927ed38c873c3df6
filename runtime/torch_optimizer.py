"""Any torch.optim optimizer over compiled gradients: the first-order baselines."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ..compiler.errors import NewtritonError
from .model import Model
from .optimizer import Patience, StepReport, not_finite


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

    def step(
        self, x: Tensor | Iterable[tuple[Tensor, Tensor]], y: Tensor | None = None
    ) -> StepReport:
        """One step on a batch; nothing changes where loss, gradient or new point is not finite.

        L-BFGS also takes `step(data)`: one step on the mean over all batches of an iterable.
        """
        batches = self._batches(x, y)
        model, flat = self.model, self.flat
        before, state = model.params.clone(), copy.deepcopy(dict(self.optimizer.state[flat]))
        loss, gradient, statistics = self._gradient(batches)
        fault, moved = not_finite(loss, gradient), False
        try:
            if fault is None:
                fault = self._move(loss, gradient, batches)
            moved = fault is None
        finally:
            if not moved:
                model.params.copy_(before)
                self.optimizer.state[flat] = state
        self.patience.count(fault)
        for of_batch in statistics if moved else ():
            model.update_statistics(of_batch)
        norm = float((model.params - before).norm())
        lr = float(self.optimizer.param_groups[0].get("lr", math.nan))
        return StepReport(
            loss, None, moved, norm, fault or "stepped", lr=lr, rejected=self.patience.rejected
        )

    def _batches(
        self, x: Tensor | Iterable[tuple[Tensor, Tensor]], y: Tensor | None
    ) -> Iterable[tuple[Tensor, Tensor]]:
        """The batch alone, or the data, which L-BFGS passes through several times."""
        if y is not None:
            return [(x, y)]  # type: ignore[list-item]
        if isinstance(x, Tensor):
            raise NewtritonError("step(x) got inputs without labels: step(x, y)")
        name = type(self.optimizer).__name__
        if not isinstance(self.optimizer, torch.optim.LBFGS):
            raise NewtritonError(
                f"{name} steps on a batch: step(x, y); only L-BFGS takes step(data)"
            )
        if isinstance(x, Iterator):
            raise NewtritonError(
                f"data is a one-shot iterator ({type(x).__name__}): give a list or a loader"
            )
        return x

    def _gradient(
        self, batches: Iterable[tuple[Tensor, Tensor]]
    ) -> tuple[float, Tensor, list[dict[str, Tensor]]]:
        """Means of h and its gradient over the samples of all batches; statistics of each."""
        samples, loss, gradient, statistics = 0, 0.0, torch.zeros_like(self.model.params), []
        for x, y in batches:
            part, slope, of_batch = self.model.gradient(x, y)
            samples += len(x)
            loss += (part - loss) * len(x) / samples
            gradient.lerp_(slope, len(x) / samples)
            statistics.append(of_batch)
        if not samples:
            raise NewtritonError("the data have no batches: give at least one")
        return loss, gradient, statistics

    def _move(
        self, loss: float, gradient: Tensor, batches: Iterable[tuple[Tensor, Tensor]]
    ) -> str | None:
        """Lets the optimizer change the parameters; what is not finite afterwards."""
        losses = [loss]
        known = [(loss, gradient)]  # the first evaluation of a line search has been made already

        @torch.no_grad()
        def closure() -> Tensor:
            loss, self.flat.grad = known.pop() if known else self._gradient(batches)[:2]
            losses.append(loss)
            return torch.tensor(loss, dtype=torch.float64)

        self.flat.grad = gradient
        if isinstance(self.optimizer, torch.optim.LBFGS):
            self.optimizer.step(closure)  # type: ignore[arg-type]
        else:
            self.optimizer.step()
        self.flat.grad = None
        return not_finite(losses[-1], self.model.params) and "a step that is not finite"

    def state_dict(self) -> dict[str, Any]:
        """A copy of the optimizer's state and the count of refused steps."""
        state = copy.deepcopy(self.optimizer.state_dict())
        return {"optimizer": state, "rejected": self.patience.rejected}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.patience.rejected = state["rejected"]
