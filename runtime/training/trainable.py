"""What `fit` and `evaluate` take: models, optimizers and data, and what is refused of them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import NoneType
from typing import Any, Protocol, runtime_checkable

import torch

from ...compiler.graph.errors import NewtritonError
from ...compiler.graph.options import (
    check_callable,
    check_count,
    check_flag,
    check_kind,
    check_list,
    check_option,
)
from ..data.sources import length_of
from ..inputs.batches import moved
from ..inputs.data import read_checked
from ..model.model import Model
from ..optimizers.averaging import Averaged, average_of
from ..tracking.tracker import Tracker
from .history import History
from .saving import RESUME

Data = Iterable[Any]  # batches (x, y): `Batches`, a DataLoader, a list …
Callback = Callable[[History], bool | None] | Tracker  # what `fit` takes


@runtime_checkable
class TrainableModel(Protocol):
    """What the loop needs of a model."""

    @property
    def device(self) -> torch.device:
        """The device to which batches are moved."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The dtype to which inputs are converted."""
        ...

    def __call__(self, x: Any) -> torch.Tensor:
        """Returns the outputs in evaluation mode."""
        ...

    def classes(self, x: Any) -> torch.Tensor:
        """Returns the class that is predicted for each label, int64 (N,) or (N, …)."""
        ...

    def loss(self, x: Any, y: torch.Tensor) -> torch.Tensor:
        """Returns the mean loss in evaluation mode, a scalar."""
        ...


@runtime_checkable
class Counting(Protocol):
    """A model for which labels decide what counts; without it, every sample does."""

    def count(self, y: torch.Tensor) -> float | torch.Tensor:
        """Returns what weighs the labels' batch in a mean over batches, a number or a scalar."""
        ...

    def counts(self, y: torch.Tensor) -> torch.Tensor:
        """Returns which int labels count."""
        ...


@runtime_checkable
class StepOptimizer(Protocol):
    """What the loop needs of an optimizer.

    One that has `takes_data` set gets all data in a step, once per epoch: `step(data)`.
    """

    def step(self, x: Any, y: torch.Tensor | None = None) -> Any:
        """Takes one step on a batch and returns a dataclass with a field `loss`."""
        ...


def check_call(
    model: TrainableModel,
    optimizer: StepOptimizer,
    data: tuple[Data, Data | None],
    epochs: int,
    progress: bool,
    callbacks: Iterable[Callback],
    history: History | None,
    average: bool,
) -> tuple[Data, Data | None, int, list[Callback], Averaged | None]:
    """Returns training and validation batches, epochs, callbacks, and the average to be validated.

    Args:
        model: the model, as all that follows a value that `fit` was given.
        optimizer: the optimizer.
        data: the batches to train on and those to evaluate.
        epochs: the number of epochs.
        progress: whether there is a progress bar.
        callbacks: what is called after each epoch.
        history: the history of an earlier call.
        average: whether an average of the parameters is validated.

    Raises:
        NewtritonError: one of them is none that there can be.
    """
    epochs = check_count("epochs", epochs)
    check_flag("progress", progress)
    check_model(model)
    kind = optimizer if isinstance(optimizer, type) else type(optimizer)
    if issubclass(kind, torch.optim.Optimizer):
        name = kind.__name__
        raise NewtritonError(
            f"optimizer is torch.optim's {name}: give TorchOptimizer(model, torch.optim.{name}, …)"
        )
    check_kind("optimizer", optimizer, StepOptimizer, "an optimizer, e.g. FITRE(model)")
    check_kind("history", history, (History, NoneType), "an nt.History")
    called = check_list("callbacks", callbacks, "a list of functions and trackers")
    for callback in called:
        if not isinstance(callback, Tracker):
            check_callable("a callback", callback)
    train = batches_of("train", data[0])
    validation = None if data[1] is None else batches_of("validation", data[1])
    for batches in (train, validation):
        _check_first(model, batches)
    _check_passes(optimizer, train, validation, epochs)
    kept = average_of(optimizer) if check_flag("average", average) else None
    return train, validation, epochs, called, kept


def check_saving(
    checkpoint: object, checkpoint_every: object, resume: str, history: History | None
) -> None:
    """Raises an error where options of a run that is saved do not go together."""
    folder = "'auto' goes on with a run where there is one, in the folder that checkpoint= names"
    check_option("resume", resume, RESUME, folder)
    if checkpoint is None and (resume != "never" or checkpoint_every is not None):
        raise NewtritonError("resume and checkpoint_every are of a checkpoint: give its folder")
    if checkpoint is not None and history is not None:
        raise NewtritonError("checkpoint keeps the history of its run: leave history out")


def check_model(model: object) -> None:
    """Raises an error where a value is no model."""
    check_kind("model", model, TrainableModel, "what nt.compile or nt.from_torch gave")


def batches_of(name: str, data: Data) -> Data:
    """Returns data as batches: a pair of tensors is one of them.

    Raises:
        NewtritonError: it is known that there are none.
    """
    if isinstance(data, tuple) and len(data) == 2 and hasattr(data[1], "shape"):
        return [data]
    if isinstance(data, (Mapping, str, bytes, torch.Tensor)) or not isinstance(data, Iterable):
        raise NewtritonError(
            f"{name} is a {type(data).__name__}: give batches (x, y), such as Batches, a "
            "DataLoader or a list"
        )
    if length_of(name, data) == 0:
        raise NewtritonError(f"{name} has no batches: give at least one")
    return data


def _check_first(model: TrainableModel, data: Any) -> None:
    """Raises an error where the first batch of a list is none that the model takes."""
    if not isinstance(data, (list, tuple)):
        return
    batch = moved(data[0], model)
    if isinstance(model, Model):
        read_checked(model.check(model.programs[True].traced, *batch).demands)


def _check_passes(
    optimizer: StepOptimizer, train: Data, validation: Data | None, epochs: int
) -> None:
    """Raises an error where data cannot be passed through as often as it takes."""
    if getattr(optimizer, "takes_data", False) and isinstance(train, Iterator):
        raise NewtritonError(
            f"train is a one-shot iterator ({type(train).__name__}), and a step of "
            f"{type(optimizer).__name__} passes through it several times: pass a list of batches, "
            "Batches or a DataLoader"
        )
    for name, data in (("train", train), ("validation", validation)):
        if epochs > 1 and isinstance(data, Iterator):
            raise NewtritonError(
                f"{name} is a one-shot iterator ({type(data).__name__}) and would be empty in the "
                f"second of {epochs} epochs: pass a list of batches, Batches or a DataLoader"
            )
