"""Any torch.optim optimizer over compiled gradients: the first-order baselines."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from ...compiler.graph.calls import checked
from ...compiler.graph.errors import NewtritonError
from ...compiler.language.trees import Tree, is_several
from ..model.model import Model, check_model
from ..parts.state import (
    Anything,
    Number,
    Spec,
    State,
    Undo,
    all_of,
    check_state,
    copied,
    drawing,
    drawing_spec,
    held,
    held_attributes,
)
from ..pieces.gathering import Asked
from ..pieces.taken import described, taken
from ..reading import is_known, largest_of, read
from ..remaking import Remade
from ..summary import summary
from .needs import check_kept
from .passes import Batch
from .report import Patience, StepReport, not_finite
from .retreat import Retreat
from .sampling import as_batches, mean_gradient
from .snapshot import Snapshot
from .torch_classes import check_options, name_of, no_class, optimizer_of, schedule_of
from .undoing import undone

# Optimizers to which one flat vector is what all parameters are: each element, or a sum over all
# elements, is what they look at. Others may look at shapes.
FLAT = frozenset({
    torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adamax, torch.optim.NAdam,
    torch.optim.RAdam, torch.optim.Adagrad, torch.optim.Adadelta, torch.optim.RMSprop,
    torch.optim.Rprop, torch.optim.ASGD, torch.optim.LBFGS,
})  # fmt: skip

# What PyTorch's schedules of learning rates keep among the options of an optimizer.
SCHEDULED = frozenset({"initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum", "swa_lr"})


@dataclass(frozen=True)
class Start:
    """What a step starts from.

    Attributes:
        loss: h, weight decay included.
        gradient: what the optimizer is given for the gradient, flat.
        statistics: the statistics of each batch, for `Model.update_statistics`.
        fault: why no step can be made; None where one can.
        reported: further fields of the step's report.
    """

    loss: float
    gradient: Tensor
    statistics: Sequence[Mapping[str, Tensor]]
    fault: str | None
    reported: Mapping[str, Any] = field(default_factory=dict)


class TorchOptimizer(Remade):
    """An optimizer of torch.optim on a compiled model.

    What it sees shares its memory with `model.params`: one flat parameter where PyTorch's class is
    known to work by element, and else each trained parameter in its shape, since Adafactor, Muon
    and classes of others look at it. Weight decay is the model's; a `weight_decay` given here comes
    on top. L-BFGS gets a closure. A step that leads to what is not finite is taken back, together
    with the optimizer's state, bit for bit.

    Args:
        model: the model to be trained.
        cls: a class of torch.optim, or one of others that is made alike.
        schedule: makes one of torch's schedules of learning rates for the optimizer, such as
            `functools.partial(LambdaLR, lr_lambda=lambda t: 1.0 / (1.0 + 1e-6 * t))`; it goes on
            after each step that is made. None leaves the rates as they are.
        micro_batch: the most samples that are taken at once: a larger batch is taken in pieces,
            whose gradients are summed exactly; None for no such bound.
        options: the arguments of the class.

    Attributes:
        optimizer: the optimizer itself, e.g. for a schedule that goes on after each epoch.
        schedule: the schedule, whose state is part of the optimizer's; None if there is none.
        flat: `model.params` as a parameter.
        seen: the parameters that it sees: `flat` alone, or those that are trained.
        steps: how many steps have been asked for.

    Raises:
        NewtritonError: the class is none, or does not take the options, or `schedule` makes no
            schedule, or one that waits for a validation loss; or batches cannot be taken in pieces.

    Examples:
        >>> import torch
        >>> import newtriton as nt
        >>> model = nt.compile(nt.Linear(3), (3,), nt.CrossEntropyLoss(), device="cpu")
        >>> optimizer = nt.TorchOptimizer(model, torch.optim.SGD, lr=0.1, momentum=0.9)
        >>> x, y = torch.eye(3), torch.arange(3)
        >>> losses = [optimizer.step(x, y).loss for _ in range(4)]
        >>> losses[-1] < losses[0]
        True
    """

    @checked
    @torch.inference_mode(False)
    def __init__(
        self,
        model: Model,
        cls: type[torch.optim.Optimizer],
        *,
        schedule: Callable[[torch.optim.Optimizer], LRScheduler] | None = None,
        micro_batch: int | None = None,
        **options: Any,
    ) -> None:
        self.model, self._frozen = check_model(model), model.check_trained()
        if not callable(cls):
            raise no_class(cls)
        self.flat = torch.nn.Parameter(model.params, requires_grad=False)
        kind = cls.func if isinstance(cls, partial) else cls
        self._shaped = kind not in FLAT
        self.seen = [self.flat]
        if self._shaped:
            views = self._views(model.params)
            self.seen = [torch.nn.Parameter(view, requires_grad=False) for view in views]
        check_options(type(self), cls, options, model.dtype)
        self._make = partial(optimizer_of, cls, options=options)
        self.optimizer, self._fits = self._make(self.seen), False
        self.schedule = None if schedule is None else schedule_of(schedule, self.optimizer)
        self.patience, self.steps = Patience(), 0
        self._before = torch.empty_like(model.params)
        self._taken = taken(model, micro_batch, self._asks)
        self._snapshot, self._retreat = Snapshot(), Retreat(model, taken=self._taken)

    @checked
    @torch.inference_mode(False)
    def step(self, x: Tree | Iterable[Batch], y: Tensor | None = None) -> StepReport:
        """Makes a step on a batch; nothing changes where loss, gradient or new point is not finite.

        Nor does it where the step ends in an error, of the data's or the schedule's.

        L-BFGS also takes `step(data)`: one step on the mean over all batches of an iterable.

        Args:
            x: inputs, or for L-BFGS the iterable of batches (x, y).
            y: labels; None for an iterable.

        Returns:
            what the step did; its `new_loss` is None, since no first-order method asks for it.

        Raises:
            NewtritonError: a batch does not fit the model, or ten steps in a row were refused; the
                model has then gone back to where the last step was made from, if the loss is finite
                there.
        """
        batches = self._batches(x, y)
        self.model.check_trained(self._frozen)
        self._retreat.begin()
        with self.model.ranks.told(), undone(self._hold()):
            report, fault = self._attempt(batches)
        self._count(fault, batches)
        return replace(report, rejected=self.patience.rejected)

    def _attempt(self, batches: Iterable[Batch]) -> tuple[StepReport, str | None]:
        """Makes a step; returns its report, and why none could be made, None where one could."""
        start = self._start(batches)
        fault, norm = start.fault, 0.0
        what: dict[str, Any] = {"status": "stepped", **start.reported, "lr": self._lr}
        if fault is None:
            fault, norm = self._move_or_stay(start.loss, start.gradient, batches)
        self.steps += 1
        if fault is not None:
            return StepReport(start.loss, None, False, norm, **{**what, "status": fault}), fault
        with undone(self._go_back):
            for of_batch in start.statistics:
                self.model.update_statistics(of_batch)
            if self.schedule is not None:
                self.schedule.step()
                self._check_rates()
        return StepReport(start.loss, None, True, norm, **what), None

    def _hold(self) -> Undo:
        """Returns what puts all but the moved tensors back to what it is now."""
        groups = self.optimizer.param_groups
        rates = [*map(copied, groups)]
        drawn = [*map(held, drawing(self.model).values())]
        schedule = [] if self.schedule is None else [held(self.schedule)]

        def undo() -> None:
            for group, before in zip(groups, rates, strict=True):
                group.update(before)

        return all_of([held_attributes(self, "steps"), *drawn, *schedule, undo])

    def _check_rates(self) -> None:
        """Raises an error where the schedule has set what is no learning rate."""
        for group in self.optimizer.param_groups:
            rate = float(group.get("lr", 0.0))
            if not 0.0 <= rate < math.inf:
                raise NewtritonError(
                    f"the schedule gives the learning rate {rate} after step {self.steps}: its "
                    "rates have to be finite and not negative"
                )

    @property
    def _lr(self) -> float:
        """The learning rate of the coming step; NaN where the optimizer has none."""
        return float(self.optimizer.param_groups[0].get("lr", math.nan))

    def _start(self, batches: Iterable[Batch]) -> Start:
        """Returns loss and gradient of the batches."""
        loss, gradient, statistics = mean_gradient(self._taken, batches)
        return Start(loss, gradient, statistics, not_finite(loss, gradient, statistics))

    def _batches(self, x: Tree | Iterable[Batch], y: Tensor | None) -> Iterable[Batch]:
        """Returns the batch alone, or the data, which L-BFGS passes through several times."""
        if y is None and not isinstance(x, Tensor) and not is_several(x) and not self.takes_data:
            name = type(self.optimizer).__name__
            raise NewtritonError(
                f"{name} steps on a batch: step(x, y); only L-BFGS takes step(data)"
            )
        return as_batches(x, y)

    def _asks(self) -> Asked | None:
        """Returns None: no factors are asked for."""
        return None

    @property
    def takes_data(self) -> bool:
        """Whether a step is meant for all data, `step(data)`, as that of L-BFGS is."""
        return isinstance(self.optimizer, torch.optim.LBFGS)

    def _move_or_stay(
        self, loss: float, gradient: Tensor, batches: Iterable[Batch]
    ) -> tuple[str | None, float]:
        """Moves, and takes the move back where it leads to what is not finite, or is interrupted.

        Returns:
            what was not finite, and the length of the step.
        """
        params = self.model.params
        if not self._fits:
            check_kept(self.model, self.seen, self._make)
            self._fits = True
        self._before.copy_(params)
        known = self.optimizer.state
        self._snapshot.take({i: known[p] for i, p in enumerate(self.seen) if p in known})
        self._retreat.keep()
        with undone(self._go_back):
            fault = self._move(loss, gradient, batches)
            if fault is not None:
                self._go_back()
            for run in self.model.held:  # an optimizer's own weight decay has moved them
                params[run].copy_(self._before[run])
            self._retreat.moved()
            return fault, float(torch.sub(params, self._before, out=self._before).norm())

    def _count(self, fault: str | None, batches: Iterable[Batch]) -> None:
        """Counts a step that was refused; with the last one model and state may go back."""
        try:
            self.patience.count(fault)
        except NewtritonError:
            if self._retreat.go_back(batches):
                self._restore()
            raise

    def _go_back(self) -> None:
        """Makes model and optimizer what they were before the last step."""
        self._retreat.restore()
        self._restore()

    def _restore(self) -> None:
        """Makes the optimizer's state be what it was before the last step."""
        self.optimizer.state.clear()
        for i, state in self._snapshot.restore().items():
            self.optimizer.state[self.seen[i]] = state  # type: ignore[assignment]

    def _views(self, vector: Tensor) -> list[Tensor]:
        """Returns the parts of a flat vector that the optimizer sees."""
        if not self._shaped:
            return [vector]
        views = self.model.layout.torch_views(vector).items()
        return [view for name, view in views if name not in self._frozen]

    def _give(self, gradient: Tensor | None) -> None:
        """Makes a flat vector be the gradient that the optimizer sees; None for no gradient."""
        views = [None] * len(self.seen) if gradient is None else self._views(gradient)
        for parameter, view in zip(self.seen, views, strict=True):
            parameter.grad = view

    def _move(self, loss: float, gradient: Tensor, batches: Iterable[Batch]) -> str | None:
        """Lets the optimizer change the parameters; returns what is not finite afterwards."""
        losses, steepest = [loss], [0.0]
        known = [(loss, gradient)]  # the first evaluation of a line search has been made already

        @torch.no_grad()
        def closure() -> Tensor:
            loss, slope = known.pop() if known else mean_gradient(self._taken, batches)[:2]
            self._give(slope)
            losses.append(loss)
            steepest.append(largest_of(slope))
            return torch.tensor(loss, dtype=torch.float64, device="cpu")

        self._give(gradient)
        if self.takes_data:
            with self.model.dropout.kept():
                self.optimizer.step(closure)  # type: ignore[arg-type]
        else:
            self.optimizer.step()
        self._give(None)
        read(largest=[x for x in (self.model.params, gradient) if not is_known(x)])
        if not_finite(losses[-1], self.model.params):
            return "a step that is not finite"
        # A state holds products of a few gradients, which are finite where these are moderate.
        moderate = max(*steepest, largest_of(gradient)) < torch.finfo(self.model.dtype).max ** 0.25
        if moderate or _is_finite(self.optimizer.state):
            return None
        return "an optimizer's state that is not finite"

    def _state_spec(self) -> Mapping[str, Spec]:
        """Returns what a state must look like, for `state.check_state`."""
        parts = dict.fromkeys(self._parts, Anything())
        return {**parts, "rejected": Number(int, 0), **drawing_spec(self.model)}

    def __str__(self) -> str:
        """Returns the optimizer, its options as they are now and how far it has come."""
        group = self.optimizer.param_groups[0]
        options = {name: value for name, value in group.items() if name != "params"}
        schedule, rejected = self.schedule, self.patience.rejected
        return summary(
            f"{type(self).__name__} of {self.model!r}",
            {
                "class": name_of(type(self.optimizer)),
                "options": ", ".join(f"{name}={value!r}" for name, value in options.items()),
                "schedule": None if schedule is None else type(schedule).__name__,
                **self._described(),
                "batches": described(self._taken),
                "steps": f"{self.steps} since it was made, {rejected} refused in a row",
            },
        )

    def _described(self) -> Mapping[str, object]:
        """Returns what there is besides, in words."""
        return {}

    @property
    def _parts(self) -> dict[str, torch.optim.Optimizer | LRScheduler]:
        """What has a state of PyTorch's, by name."""
        schedule = {} if self.schedule is None else {"schedule": self.schedule}
        return {"optimizer": self.optimizer, **schedule}

    def state_dict(self) -> State:
        """Returns copies of all that the coming steps depend on, besides model and data."""
        parts = {name: copy.deepcopy(part.state_dict()) for name, part in self._parts.items()}
        drawn = {name: part.state_dict() for name, part in drawing(self.model).items()}
        return {**parts, "rejected": self.patience.rejected, **drawn}

    @checked
    @torch.inference_mode(False)
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave.

        Raises:
            NewtritonError: the state is of another optimizer or network; nothing has changed.
        """
        state = check_state(self._state_spec(), state)
        found = list(self._faults(state["optimizer"]))
        if (
            self.schedule is not None
            and state["schedule"].keys() != self.schedule.state_dict().keys()
        ):
            found.append(f"the schedule is no {type(self.schedule).__name__}")
        if found:
            raise NewtritonError(
                f"load_state_dict: {'; '.join(found)}. Load the state of the same optimizer, made "
                "for the same network"
            )
        self._retreat.forget()
        for name, part in self._parts.items():
            part.load_state_dict(copy.deepcopy(state[name]))
        for name, part in drawing(self.model).items():
            part.load_state_dict(state[name])
        self.patience.rejected = state["rejected"]

    def _faults(self, state: Any) -> Iterator[str]:
        """Yields what keeps a state from being one of this optimizer's."""
        own = self.optimizer.state_dict()
        if not isinstance(state, Mapping) or state.keys() != own.keys():
            yield f"the state is no state of torch.optim.{type(self.optimizer).__name__}"
            return
        groups = state["param_groups"]
        if not isinstance(groups, list) or len(groups) != 1 or not isinstance(groups[0], Mapping):
            yield "param_groups is not a list of one group"
        elif differing := _differing(groups[0].keys(), own["param_groups"][0].keys()):
            yield f"options that only one of the two has: {', '.join(sorted(differing))}"
        elif groups[0]["params"] != own["param_groups"][0]["params"]:
            yield f"the group does not hold {len(self.seen)} parameters, as the optimizer's does"
        known = dict(enumerate(self.seen))
        if not isinstance(state["state"], Mapping) or state["state"].keys() - known.keys():
            yield f"the state is not of {len(self.seen)} parameters, as the optimizer's is"
            return
        if type(self.optimizer).__module__.startswith("torch."):
            for i, values in state["state"].items():
                yield from _misshapen(values, known[i])


def _is_finite(state: Any) -> bool:
    """Whether all numbers of an optimizer's state are finite."""
    if isinstance(state, Mapping):
        return all(map(_is_finite, state.values()))
    if isinstance(state, (list, tuple)):
        return all(map(_is_finite, state))
    if isinstance(state, Tensor):
        return not state.is_floating_point() or math.isfinite(largest_of(state))
    return not isinstance(state, float) or math.isfinite(state)


def _misshapen(values: Mapping[str, Any], parameter: Tensor) -> Iterator[str]:
    """Yields what of a parameter's state cannot be its: a size is its own or 1 in each axis."""
    for name, value in values.items():
        for tensor in value if isinstance(value, (list, tuple)) else [value]:
            if not isinstance(tensor, Tensor) or tensor.numel() == 1:
                continue
            pairs = zip(tensor.shape, parameter.shape, strict=False)
            if tensor.dim() != parameter.dim() or any(a not in (1, b) for a, b in pairs):
                shape, own = tuple(tensor.shape), tuple(parameter.shape)
                yield f"{name} has shape {shape}, of a parameter of shape {own}"
                break


def _differing(saved: Collection[str], own: Collection[str]) -> set[str]:
    """Returns the options that only one of two groups has.

    A schedule may have left options in the saved group; it may be made after the state is loaded.
    """
    return (set(saved) ^ set(own)) - (SCHEDULED & set(saved))
