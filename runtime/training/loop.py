"""The training loop: epochs of optimizer steps, validation after each, all of it recorded."""

import operator
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, fields
from enum import Enum
from operator import length_hint
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from tqdm.auto import tqdm

from ...compiler.graph.errors import NewtritonError
from ...compiler.graph.options import check_count, check_flag
from ..model.batches import Moved, moved
from ..reading import read
from .epoch import Epoch
from .history import History

Data = Iterable[Any]  # batches (x, y): `Batches`, a DataLoader, a list …
Callback = Callable[[History], bool | None]

SHOWN = ("loss", "rho", "radius", "damping", "lr")  # what the progress bar shows of a report


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


class StepOptimizer(Protocol):
    """What the loop needs of an optimizer.

    One that has `takes_data` set gets all data in a step, once per epoch: `step(data)`.
    """

    def step(self, x: Any, y: torch.Tensor | None = None) -> Any:
        """Takes one step on a batch and returns a dataclass with a field `loss`."""
        ...


@runtime_checkable
class Averaged(Protocol):
    """An average of the parameters, see `PolyakAverage`."""

    def in_place(self, model: Any) -> AbstractContextManager[None]:
        """Puts the average in the place of the parameters, inside a `with` statement."""
        ...


def fit(
    model: TrainableModel,
    optimizer: StepOptimizer,
    train: Data,
    validation: Data | None = None,
    epochs: int = 1,
    *,
    progress: bool = True,
    callbacks: Iterable[Callback] = (),
    log_dir: str | Path | None = None,
    history: History | None = None,
    average: bool = False,
) -> History:
    """Trains for some epochs and records every step.

    Ctrl-C ends the training where it stands: model and optimizer keep their state, and the
    history so far is returned with `interrupted` set.

    Args:
        model: gets the batches on its device, inputs in its dtype.
        optimizer: `step(x, y)` is called once per batch; or, where it has `takes_data` set, as
            `NewtonCG` and L-BFGS have, `step(data)` once per epoch with all of them.
        train: any iterable of batches (x, y) that can be passed through once per epoch.
        validation: batches to evaluate after each epoch, or a pair (x, y), which is one.
        epochs: how many passes to make.
        progress: whether to draw a progress bar.
        callbacks: called with the history after each epoch; returning True ends the training.
        log_dir: where to write TensorBoard's event files.
        history: the history of an earlier call, to be continued: its counts and seconds go on.
        average: whether the Polyak average of the parameters that the optimizer keeps is what is
            validated, see `PolyakAverage`; training goes on from the parameters themselves.

    Returns:
        the history, which is the one passed in if there was one.

    Raises:
        NewtritonError: `epochs` is no positive integer, data have no batches or cannot be passed
            through as often, a batch is no pair (x, y), the optimizer keeps no average that is
            asked for, or what the optimizer's step raises.

    Examples:
        >>> import newtriton as nt
        >>> train, test = nt.digits()
        >>> net = nt.Sequential(nt.Flatten(), nt.Linear(10))
        >>> model = nt.compile(net, input_shape=(1, 8, 8), loss=nt.CrossEntropyLoss())
        >>> batches = nt.Batches(*train, batch_size=500)
        >>> history = nt.fit(model, nt.FITRE(model), batches, [test], epochs=3, progress=False)
        >>> history.epochs[-1].validation_accuracy > 0.9
        True
    """
    check_count("epochs", epochs)
    train = _batches("train", train)
    validation = None if validation is None else _batches("validation", validation)
    whole = getattr(optimizer, "takes_data", False)
    if whole and isinstance(train, Iterator):
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
    kept = average_of(optimizer) if check_flag("average", average) else None
    history = History() if history is None else history
    history.interrupted = False
    callbacks = [*callbacks, *([] if log_dir is None else [TensorBoard(log_dir)])]
    first = len(history.epochs) + 1
    total = epochs if whole else epochs * length_hint(train) or None
    with tqdm(total=total, unit="step", disable=not progress) as bar:
        loop = _Loop(model, optimizer, history, bar)
        try:
            for epoch in range(first, first + epochs):
                bar.set_description(f"epoch {epoch}/{first + epochs - 1}")
                loss = loop.make_step(train, epoch) if whole else loop.make_pass(train, epoch)
                with nullcontext() if kept is None else kept.in_place(model):
                    scores = (None, None) if validation is None else evaluate(model, validation)
                history.epochs.append(
                    Epoch(epoch, len(history.steps), history.seconds, loss, *scores)
                )
                if any([callback(history) for callback in callbacks]):
                    break
        except KeyboardInterrupt:
            history.interrupted = True
    return history


def average_of(optimizer: object) -> Averaged:
    """Returns the average of the parameters that an optimizer keeps.

    Raises:
        NewtritonError: it keeps none.
    """
    average = getattr(optimizer, "average", None)
    if not isinstance(average, Averaged):
        raise NewtritonError(
            f"{type(optimizer).__name__} keeps no average of the parameters: make it with one, as "
            "in KFRA(model, average=0.95), or leave average out"
        )
    return average


def evaluate(model: TrainableModel, data: Data) -> tuple[float, float | None]:
    """Returns the mean loss over all batches, and the share of right classes.

    The model is in evaluation mode, and its loss includes weight decay. Both are over the labels
    that count. The share is None where labels are not int64, one for each class predicted.

    Args:
        model: gets the batches on its device, inputs in its dtype.
        data: any iterable of batches (x, y).

    Raises:
        NewtritonError: there are no batches, or one is no pair (x, y).

    Examples:
        >>> import newtriton as nt
        >>> train, test = nt.digits()
        >>> model = nt.compile(nt.models.mlp((16,)), (1, 8, 8), nt.CrossEntropyLoss())
        >>> loss, accuracy = nt.evaluate(model, [test])
        >>> 0.0 < accuracy < 0.3  # of a network that has not been trained
        True
    """
    data, mean, classified = _batches("validation", data), _Mean(model), True
    found: list[torch.Tensor] = []  # how many classes are right, and how many labels count
    for batch in data:
        x, y = moved(batch, model)
        mean.add(float(model.loss(x, y)), y)
        classified = classified and y.dtype == torch.int64
        if not classified:
            continue
        classes = model.classes(x)
        counts = model.counts(y) if isinstance(model, Counting) else torch.ones_like(y).bool()
        classified = classes.shape == y.shape
        if classified:
            found.append(torch.stack([((classes == y) & counts).sum(), counts.sum()]))
    if not mean.losses:
        raise NewtritonError("the validation data have no batches: pass at least one")
    if not classified:
        return mean.value, None
    ((right, labels),) = read(torch.stack(found).sum(0))
    return mean.value, float(right) / float(labels)


class _Mean:
    """A mean of losses over batches, each weighed by what counts in it.

    What counts stays where the labels are until the mean is asked for.

    Args:
        model: whose losses they are.

    Attributes:
        losses: the mean loss of each batch.
    """

    def __init__(self, model: TrainableModel) -> None:
        self.model, self.losses = model, list[float]()
        self._counts: list[float | torch.Tensor] = []

    def add(self, loss: float, y: torch.Tensor) -> None:
        """Takes in the loss of a batch with the labels y."""
        counting = self.model if isinstance(self.model, Counting) else None
        self._counts.append(len(y) if counting is None else counting.count(y))
        self.losses.append(loss)

    @property
    def value(self) -> float:
        """The mean."""
        brought = iter(read(*(c for c in self._counts if isinstance(c, torch.Tensor))))
        counts = [float(next(brought)) if isinstance(c, torch.Tensor) else c for c in self._counts]
        total = sum(map(operator.mul, counts, self.losses))
        return total / sum(counts)


class TensorBoard:
    """A callback that writes losses, accuracies and the steps' reports as TensorBoard events.

    Args:
        log_dir: the folder of the event files.

    Attributes:
        writer: TensorBoard's writer.
        written: how many steps of the history have been written.
    """

    def __init__(self, log_dir: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 (optional)
        except ImportError as error:
            raise NewtritonError(
                f"log_dir={str(log_dir)!r} needs TensorBoard: pip install tensorboard, or leave "
                "log_dir out"
            ) from error
        self.writer = SummaryWriter(str(log_dir))
        self.written = 0

    def __call__(self, history: History) -> None:
        """Writes what the history has gained since the last call."""
        for step in history.steps[self.written :]:
            for name, value in step.items():
                if isinstance(value, int | float) and name not in ("step", "epoch"):
                    self.writer.add_scalar(f"step/{name}", value, step["step"])
        self.written = len(history.steps)
        epoch = history.epochs[-1]
        for name, value in asdict(epoch).items():
            if value is not None and name != "number":
                self.writer.add_scalar(f"epoch/{name}", value, epoch.number)
        self.writer.flush()


@dataclass(frozen=True)
class _Loop:
    """What stays the same from epoch to epoch.

    Attributes:
        model: the model that is trained.
        optimizer: the optimizer that takes the steps.
        history: the history that gains the steps' records.
        bar: the progress bar.
    """

    model: TrainableModel
    optimizer: StepOptimizer
    history: History
    bar: tqdm

    def make_pass(self, train: Data, epoch: int) -> float:
        """Steps through the data once; returns the mean loss over all that counts."""
        mean = _Mean(self.model)
        start = time.perf_counter() - self.history.seconds
        for batch in train:
            x, y = moved(batch, self.model)
            record = self._recorded(self.optimizer.step(x, y), epoch, start)
            mean.add(record["loss"], y)
        if not mean.losses:
            raise NewtritonError(
                f"the training data have no batches in epoch {epoch}: pass a list of batches, "
                "Batches or a DataLoader with at least one batch"
            )
        return mean.value

    def make_step(self, train: Data, epoch: int) -> float:
        """Makes one step on all data; returns its loss."""
        start = time.perf_counter() - self.history.seconds
        report = self.optimizer.step(Moved(train, self.model))
        return self._recorded(report, epoch, start)["loss"]

    def _recorded(self, report: Any, epoch: int, start: float) -> dict[str, Any]:
        """Keeps the record of a step in the history, and returns it.

        Args:
            report: the optimizer's.
            epoch: the number of the epoch.
            start: when training would have started, had it gone on all the time.
        """
        record = {
            "step": len(self.history.steps) + 1,
            "epoch": epoch,
            "seconds": time.perf_counter() - start,
            **{field.name: _plain(getattr(report, field.name)) for field in fields(report)},
        }
        self.history.steps.append(record)
        self.bar.set_postfix(_shown(record, self.history), refresh=False)
        self.bar.update()
        return record


def _batches(name: str, data: Data) -> Data:
    """Returns data as batches: a pair of tensors is one of them.

    Raises:
        NewtritonError: it is known that there are none.
    """
    if isinstance(data, tuple) and len(data) == 2 and hasattr(data[1], "shape"):
        return [data]
    if not isinstance(data, Iterable):
        raise NewtritonError(
            f"{name} is a {type(data).__name__}: give batches (x, y), such as Batches, a "
            "DataLoader or a list"
        )
    if length_hint(data, 1) == 0:
        raise NewtritonError(f"{name} has no batches: give at least one")
    return data


def _plain(value: Any) -> Any:
    """Returns a report's value as JSON has it."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    return value.name if isinstance(value, Enum) else value


def _shown(record: dict[str, Any], history: History) -> dict[str, str]:
    """Returns what the progress bar says of a step, text by name."""
    shown = {name: f"{record[name]:.3g}" for name in SHOWN if record.get(name) is not None}
    if history.epochs and history.epochs[-1].validation_accuracy is not None:
        shown["accuracy"] = f"{history.epochs[-1].validation_accuracy:.1%}"
    return shown
