"""The training loop: epochs of optimizer steps, validation after each, all of it recorded."""

import signal
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, fields
from enum import Enum
from functools import partial
from operator import length_hint
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from ...compiler.graph.calls import checked
from ...compiler.graph.errors import NewtritonError
from ..data.sources import is_stateful, mark_of
from ..inputs.batches import Moved, moved
from ..optimizers.averaging import Averaged
from ..parallel.ranks import Ranks
from ..parallel.share import ended_together
from ..paths import path_of
from ..reading import read
from ..tracking.events import ENDED, INTERRUPTED, Place, epoch_event, step_event
from ..tracking.stream import Stream
from ..tracking.tensorboard import TensorBoard
from ..tracking.tracker import Tracker
from .about import about
from .epoch import Epoch
from .history import History
from .ranked import RankedSaving, check_calls
from .runs import Resumed, RunFolder, Within, rest_of, states_of
from .saving import Interval, Saving, folder_of
from .signals import Noted, noted
from .trainable import (
    Callback,
    Counting,
    Data,
    StepOptimizer,
    TrainableModel,
    batches_of,
    check_call,
    check_model,
    check_saving,
)

END = object()  # what stands for a batch where there are no more
TOGETHER = 256  # batches whose counts are read in one transfer
SHOWN = ("loss", "rho", "radius", "damping", "lr")  # what the progress bar shows of a report


@checked
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
    checkpoint: str | Path | RunFolder | None = None,
    checkpoint_every: int | str | None = None,
    resume: str = "never",
    keep: int = 2,
) -> History:
    """Trains for some epochs and records every step.

    Ctrl-C ends the training where it stands: model and optimizer keep their state, and the
    history so far is returned with `interrupted` set. With `checkpoint`, Ctrl-C and SIGTERM let the
    step be finished and the run be saved first, and SIGTERM then ends the program with status 143;
    a second one acts at once.

    Args:
        model: gets the batches on its device, inputs in its dtype.
        optimizer: `step(x, y)` is called once per batch; or, where it has `takes_data` set, as
            `NewtonCG` and L-BFGS have, `step(data)` once per epoch with all of them.
        train: any iterable of batches (x, y) that can be passed through once per epoch.
        validation: batches to evaluate after each epoch, or a pair (x, y), which is one.
        epochs: how many passes to make; with `checkpoint`, the length of the whole run, of which
            what is left is made.
        progress: whether to draw a progress bar.
        callbacks: functions that are called with the history after each epoch, of which one that
            returns True ends the training; and trackers, such as `JSONLines`, which get every step.
        log_dir: where to write TensorBoard's event files, see `TensorBoard`.
        history: the history of an earlier call, to be continued: its counts and seconds go on.
        average: whether the Polyak average of the parameters that the optimizer keeps is what is
            validated, see `PolyakAverage`; training goes on from the parameters themselves.
        checkpoint: a folder in which all that the run depends on is saved after each epoch, when
            its callbacks have been called; each time beside the last one, which stays intact.
        checkpoint_every: saves in the middle of an epoch too, after so many steps, or so much time
            as in "30s", "10m" or "2h".
        resume: "never" begins a run in the folder; "auto" goes on with the one in it, or begins
            where there is none, and returns at once where a callback has ended it and callbacks
            are given; "last", "previous" and "best" go on with what was saved last, before, or
            with the lowest validation loss. A run goes on to the bit. Where its optimizer was made
            with other options before, a warning names them.
        keep: how many of the saved states are kept, besides the best.

    Returns:
        the history, which is the one passed in if there was one.

    Raises:
        NewtritonError: `epochs` is no positive integer, data have no batches or cannot be passed
            through as often, a batch is no pair (x, y), the optimizer keeps no average that is
            asked for, the folder holds a run that is not to be resumed, or one that is damaged or
            of another network or optimizer, or cannot be written; or what the optimizer's step
            raises.

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
    data = train, validation
    train, validation, epochs, callbacks, kept = check_call(
        model, optimizer, data, epochs, progress, callbacks, history, average
    )
    check_saving(checkpoint, checkpoint_every, resume, history)
    ranks = _ranks_of(model)
    first = ranks.rank == 0  # what is shown and written is so by one rank
    with ranks.told(), ExitStack() as stack:
        options = epochs, average, checkpoint is None, checkpoint_every, resume
        check_calls(ranks, model, optimizer, (train, validation), *options)
        trackers = [callback for callback in callbacks if isinstance(callback, Tracker)]
        called = [callback for callback in callbacks if callable(callback)]
        if log_dir is not None and first:
            trackers.append(TensorBoard(path_of("log_dir", log_dir)))
        parts = model, optimizer, train
        saved = checkpoint, keep, checkpoint_every, resume
        saving, resumed = stack.enter_context(_begun(ranks, (*parts, kept), *saved, history))
        if resumed.changed and first:
            warnings.warn(resumed.changed, stacklevel=3)
        history, ending = resumed.history, Noted() if saving is None else saving.signal
        over = history.stopped and bool(called) and resume == "auto"
        history.interrupted, history.stopped = False, over
        left = epochs if saving is None else max(0, epochs - len(history.epochs))
        left = 0 if over else left
        if saving is not None:
            trackers.insert(0, saving.log)
        stream = Stream(trackers if first else [])
        takes_data = getattr(optimizer, "takes_data", False)
        total = left if takes_data else left * length_hint(train) or None
        with (
            stream.failing(partial(_place, history)),
            tqdm(total=total, unit="step", disable=not (progress and first)) as bar,
        ):
            if first:
                _tell(stream, parts, {"epochs": epochs, "average": average}, history, saving)
            loop = _Loop(model, optimizer, history, bar, saving, stream)
            try:
                loop.run(train, validation, left, kept, called, resumed.within)
            except KeyboardInterrupt as interrupt:
                history.interrupted = True
                ranks.leave(interrupt)
        history.interrupted |= ending.number is not None
        stream.end(INTERRUPTED if history.interrupted else ENDED, _place(history))
    if ending.number == signal.SIGTERM:
        raise SystemExit(128 + signal.SIGTERM)
    return history


@checked
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
    check_model(model)
    data, mean, classified = batches_of("validation", data), _Mean(model), True
    found = torch.zeros(
        2, dtype=torch.int64, device=model.device
    )  # classes right, labels that count
    ranks = _ranks_of(model)
    with ranks.told():
        for batch in data:
            x, y = moved(batch, model)
            mean.add(float(model.loss(x, y)), y)
            classified = classified and y.dtype == torch.int64
            if not classified or not len(y):
                continue
            classes = model.classes(x)
            counts = model.counts(y) if isinstance(model, Counting) else torch.ones_like(y).bool()
            classified = classes.shape == y.shape
            if classified:
                found += torch.stack([((classes == y) & counts).sum(), counts.sum()])
        ended_together(ranks, model.device)
    if not mean.batches:
        raise NewtritonError("the validation data have no batches: pass at least one")
    if not classified:
        return mean.value, None
    ((right, labels),) = read(ranks.all_sum(found))
    return mean.value, float(right) / float(labels)


@contextmanager
def _begun(
    ranks: Ranks,
    parts: tuple[TrainableModel, StepOptimizer, Data, Averaged | None],
    checkpoint: str | Path | RunFolder | None,
    keep: int,
    every: int | str | None,
    resume: str,
    history: History | None,
) -> Iterator[tuple[Saving | None, Resumed]]:
    """Begins a run, or goes on with one; yields what saves it, None where nothing does, and it.

    Args:
        ranks: the ranks that train.
        parts: model, optimizer, data and the average that is validated.
        checkpoint: the folder, as all that follows what `fit` was given.
        keep: how many saved states are kept.
        every: how often it is saved in the middle of an epoch.
        resume: whether it goes on.
        history: the history of an earlier call.
    """
    if checkpoint is None:
        yield None, Resumed(History() if history is None else history)
        return
    with noted() as ending:
        given = folder_of(checkpoint, keep), *parts, Interval.of(every), ending
        saving = Saving(*given) if ranks.alone else RankedSaving(*given, ranks=ranks)
        with saving.begun(resume) as resumed:
            yield saving, resumed


def _tell(
    stream: Stream,
    parts: tuple[TrainableModel, StepOptimizer, Data],
    options: dict[str, Any],
    history: History,
    saving: Saving | None,
) -> None:
    """Tells trackers that a run begins or goes on.

    Args:
        stream: tells them.
        parts: model, optimizer and data.
        options: those of the call; what the folder has of the command line is told with them.
        history: the records of the run so far.
        saving: what saves the run.
    """
    run = None
    if saving is not None:
        options, run = options | dict(saving.folder.options), saving.log.run
    records = history.steps, [asdict(epoch) for epoch in history.epochs]
    stream.begin(about(*parts, options), *records, run=run)


def _ranks_of(model: TrainableModel) -> Ranks:
    """Returns the ranks that train a model."""
    return getattr(model, "ranks", None) or Ranks(None)


class _Mean:
    """A mean of losses over batches, each weighed by what counts in it.

    What counts stays where the labels are until many batches are read together.

    Args:
        model: whose losses they are.
        sums: the weighed sum of the losses, and that of the weights, of batches that came before.

    Attributes:
        batches: how many batches it has.
    """

    def __init__(self, model: TrainableModel, sums: tuple[float, float] = (0.0, 0.0)) -> None:
        self.model, self.batches, self._sums = model, 0, sums
        self._unread: list[tuple[float, float | torch.Tensor]] = []

    def add(self, loss: float, y: torch.Tensor) -> None:
        """Takes in the loss of a batch with the labels y."""
        counting = self.model if isinstance(self.model, Counting) else None
        self._unread.append((loss, len(y) if counting is None else counting.count(y)))
        self.batches += 1
        if len(self._unread) == TOGETHER:
            self.sums()

    def sums(self) -> tuple[float, float]:
        """Returns the weighed sum of the losses and that of the weights."""
        brought = iter(read(*(c for _, c in self._unread if isinstance(c, torch.Tensor))))
        weighed, weight = self._sums
        for loss, unread in self._unread:
            count = float(next(brought)) if isinstance(unread, torch.Tensor) else unread
            weighed, weight = weighed + count * loss, weight + count
        self._sums, self._unread = (weighed, weight), []
        return self._sums

    @property
    def value(self) -> float:
        """The mean."""
        weighed, weight = self.sums()
        return weighed / weight


@dataclass(frozen=True)
class _Loop:
    """What stays the same from epoch to epoch.

    Attributes:
        model: the model that is trained.
        optimizer: the optimizer that takes the steps.
        history: the history that gains the steps' records.
        bar: the progress bar.
        saving: what saves the run, None where it is not saved.
        stream: what tells trackers of steps and epochs.
    """

    model: TrainableModel
    optimizer: StepOptimizer
    history: History
    bar: tqdm
    saving: Saving | None
    stream: Stream

    def run(
        self,
        train: Data,
        validation: Data | None,
        epochs: int,
        average: Averaged | None,
        callbacks: Iterable[Callable[[History], object]],
        within: Within | None,
    ) -> None:
        """Trains for some epochs, until a callback or a signal ends the run; see `fit`.

        Args:
            train: the batches to step on.
            validation: the batches to evaluate after each epoch.
            epochs: how many epochs are left.
            average: what is validated, None for the parameters themselves.
            callbacks: what is called after each epoch.
            within: where the first of these epochs goes on, None for its beginning.
        """
        history = self.history
        first = len(history.epochs) + 1
        for epoch in range(first, first + epochs):
            self.bar.set_description(f"epoch {epoch}/{first + epochs - 1}")
            if getattr(self.optimizer, "takes_data", False):
                loss = self.make_step(train, epoch)
            else:
                loss = self.make_pass(train, epoch, within if epoch == first else None)
            if loss is None:
                return
            with nullcontext() if average is None else average.in_place(self.model):
                scores = (None, None) if validation is None else evaluate(self.model, validation)
            history.epochs.append(Epoch(epoch, history.count, history.seconds, loss, *scores))
            self.stream.send(epoch_event(asdict(history.epochs[-1])))
            ended = any([callback(history) for callback in callbacks])
            ended = history.stopped = bool(_ranks_of(self.model).most(ended))
            if self.saving is not None:
                self.saving.save(history)
                ended = ended or self.saving.signal.number is not None
            if ended:
                return

    def make_pass(self, train: Data, epoch: int, within: Within | None = None) -> float | None:
        """Steps through the data once; returns the mean loss over all that counts.

        It is None where a signal has ended the pass before its end.

        Args:
            train: the batches.
            epoch: the number of the epoch.
            within: where the pass goes on, None for its beginning.
        """
        mean, begun = _Mean(self.model), {}
        if within is not None:
            mean, begun = _Mean(self.model, within.sums), within.start
            mean.batches = within.batches
        start = time.perf_counter() - self.history.seconds
        if self.saving is not None and within is None and not is_stateful(train):
            begun = states_of(train)
        batches = iter(train) if within is None else rest_of(train, within, self.model)
        batch = next(batches, END)
        while batch is not END:
            x, y = moved(batch, self.model)
            record = self._recorded(self.optimizer.step(x, y), epoch, start)
            mean.add(record["loss"], y)
            due = self.saving is not None and self.saving.is_due()
            now = states_of(train) if due else {}
            batch = next(batches, END)  # with the last one the epoch is saved, not a part of it
            if self.saving is None or not due or batch is END:
                continue
            mark = mark_of(x, y) if begun else ()
            within = Within(mean.batches, mean.sums(), begun, now, mark)
            self.saving.save(self.history, within)
            if self.saving.signal.number is not None:
                return None
        ended_together(_ranks_of(self.model), self.model.device)
        if not mean.batches:
            raise NewtritonError(
                f"the training data have no batches in epoch {epoch}: pass a list of batches, "
                "Batches or a DataLoader with at least one batch"
            )
        _check_whole(train, mean.batches, epoch)
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
            "step": self.history.count + 1,
            "epoch": epoch,
            "seconds": time.perf_counter() - start,
            **{field.name: _plain(getattr(report, field.name)) for field in fields(report)},
        }
        self.history.record(record)
        self.stream.send(step_event(record))
        self.bar.set_postfix(_shown(record, self.history), refresh=False)
        self.bar.update()
        return record


def _check_whole(train: Data, batches: int, epoch: int) -> None:
    """Warns where data have ended before the number of batches that they say they have.

    A StopIteration inside of them looks like their end.
    """
    said = length_hint(train, 0)
    if batches < said:
        warnings.warn(
            f"train ({type(train).__name__}) gave {batches} of its {said} batches in epoch "
            f"{epoch}: look for what ends it, or mend its length",
            stacklevel=2,
        )


def _place(history: History) -> Place:
    """Returns how far a run has come."""
    return Place(history.count, len(history.epochs))


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
