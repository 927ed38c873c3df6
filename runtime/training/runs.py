"""What a training run is, to the bit: what is saved of it in a folder, and restored.

Weights and the tensors of the state are safetensors, the rest is JSON (`encoding.py`): nothing that
is read is ever code. `generations.py` says how they lie on disk. Where the weights are an average,
and in the middle of an epoch, the state has the parameters that training goes on from too.
"""

from __future__ import annotations

import hashlib
import json
import math
import operator
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from safetensors.torch import load, save
from torch import Tensor

from ...compiler.graph.errors import NewtritonError
from ...compiler.graph.ir import structure
from ..data.sources import Source, is_stateful, mark_of, set_back, sources
from ..disk import parsed, read_json, unreadable, unwritable
from ..inputs.batches import Placed, moved
from ..model.compiled import Compiled
from ..optimizers.averaging import Averaged
from . import files
from .about import arguments_of, changed_arguments, label
from .encoding import Decoder, Encoder
from .generations import BEST, LAST, PREVIOUS, Generations
from .history import History

EVENTS = "events.jsonl"  # the file that says how a run began, went on and ended
OPTIONS = "options.json"
FORMAT = 1  # of a generation's files
WEIGHTS, TENSORS, STATE, HISTORY = PARTS = (
    "weights.safetensors", "state.safetensors", "state.json", "history.json",
)  # fmt: skip


class Stateful(Protocol):
    """A model or an optimizer: what a run saves of it."""

    def state_dict(self) -> dict[str, Any]:
        """Returns all that the next step depends on."""
        ...

    def load_state_dict(self, state: Any) -> Any:
        """Takes up a saved state."""
        ...


class Within(NamedTuple):
    """Where a run is in the middle of an epoch.

    Attributes:
        batches: how many batches of the epoch have been stepped on.
        sums: the weighed sum of their losses, and that of their weights, for the epoch's mean.
        start: what the data drew from where the epoch began, by name; see `data/sources.py`.
        now: the same after the last step.
        mark: what tells the last of the batches from others, see `mark_of`; empty for data that
            save themselves where they are.
    """

    batches: int
    sums: tuple[float, float]
    start: dict[str, Any]
    now: dict[str, Any]
    mark: tuple[str, ...] = ()

    @classmethod
    def parsed(cls, state: Mapping[str, Any], history: History) -> Within:
        """Returns what has been saved; earlier runs saved each batch's weight.

        Raises:
            ValueError: it is something else.
        """
        saved: dict[str, Any] = dict(state)
        if (counts := saved.pop("counts", None)) is not None:
            losses = [step["loss"] for step in history.steps[-len(counts) :]]
            saved["sums"] = sum(map(operator.mul, counts, losses)), sum(counts)
        saved["sums"] = tuple(saved["sums"])
        within = cls(**saved)
        numbers = len(within.sums) == 2 and {*map(type, within.sums)} <= {int, float}
        if not numbers or not isinstance(within.batches, int) or within.batches < 1:
            raise ValueError(f"{within.batches!r} batches of an epoch are none")
        return within


class Resumed(NamedTuple):
    """What goes on.

    Attributes:
        history: the records of the run so far.
        within: where the run is in an epoch; None between two.
        changed: what is said of the optimizer's arguments that are others than before; "" of none.
    """

    history: History
    within: Within | None = None
    changed: str = ""


@dataclass(frozen=True)
class RunFolder:
    """Saves and restores a training run.

    Attributes:
        path: the folder.
        options: what the run was started with, except for its length. A run can go on under the
            same options only.
        defaults: what an option was that an older folder does not have; None unless given.
        keep: how many generations are kept; the best is kept beside them.
    """

    path: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    keep: int = 2

    @property
    def generations(self) -> Generations:
        """What has been saved."""
        return Generations(self.path, self.keep)

    def check_new(self) -> None:
        """Raises an error where the folder holds a run, which is left alone."""
        self._check_open()
        if self.generations.exist:
            raise NewtritonError(
                f"{self.path} holds a run already: resume it, or choose another folder"
            )

    def make(self) -> None:
        """Makes the folder where there is none.

        Raises:
            NewtritonError: it cannot be made.
        """
        try:
            files.make_folder(self.path)
        except OSError as error:
            raise unwritable(self.path, error) from error

    def begin(self) -> History:
        """Makes the folder for a new run and returns an empty history.

        Raises:
            NewtritonError: the folder holds a run, which is left alone, or cannot be written.
        """
        self.check_new()
        self.make()
        text = json.dumps(dict(self.options), indent=1) + "\n"
        try:
            files.replace(self.path / OPTIONS, text.encode())
        except OSError as error:
            raise unwritable(self.path, error) from error
        return History()

    def save(
        self,
        model: Stateful,
        optimizer: Stateful,
        data: Any,
        history: History,
        average: Averaged | None = None,
        within: Within | None = None,
        state_of_optimizer: Any = None,
    ) -> None:
        """Keeps everything as it is now, or as it was in the middle of an epoch.

        Args:
            model: the model.
            optimizer: the optimizer.
            data: the data that are trained on.
            history: the records of the run.
            average: the average that the weights are, None for the parameters themselves.
            within: where the run is in an epoch; the weights stay those of the last one then.
            state_of_optimizer: the optimizer's state, where it is not `optimizer.state_dict()`.

        Raises:
            NewtritonError: a state has what cannot be saved, or the folder cannot be written.
        """
        own = optimizer.state_dict() if state_of_optimizer is None else state_of_optimizer
        state: dict[str, Any] = {"optimizer": own, "within": None}
        if within is None:
            state["data"] = states_of(data)
        else:
            state["data"], state["within"] = within.now, within._replace(now={})._asdict()
        if average is not None or within is not None:
            state["model"] = model.state_dict()
        encoder = Encoder(*_flat_of(model))
        described = {"format": FORMAT, "optimizer": label(optimizer), "network": _network(model)}
        described["arguments"] = arguments_of(optimizer)
        described["state"] = {name: encoder(part, name) for name, part in state.items()}
        parts = {
            TENSORS: save(encoder.tensors),
            STATE: json.dumps(described).encode(),
            HISTORY: history.text().encode(),
        }
        tensors = [x for name, x in encoder.tensors.items() if name.startswith("model.")]
        if within is None:
            weights = _weights(model, average)
            parts[WEIGHTS] = save(weights)
            tensors += weights.values()
        is_finite = all(bool(tensor.isfinite().all()) for tensor in tensors)
        shared = () if within is None else (WEIGHTS,)
        measure = math.inf if within else _measure(history)
        self.generations.write(parts, shared, measure, is_finite)

    def load(self, model: Stateful, optimizer: Stateful, data: Any, which: str = LAST) -> Resumed:
        """Restores what `save` kept.

        Args:
            model: the model.
            optimizer: the optimizer.
            data: the data that are trained on.
            which: the last generation, the best, or the one before the last that is undamaged.

        Raises:
            NewtritonError: there is no run, it is damaged, or it is of another network or optimizer
                or was started with other options; nothing has changed.
        """
        self._check_open()
        self._check_options()
        if not self.generations.exist:
            raise NewtritonError(
                f"{self.path} holds no completed epoch: start the run again without resuming"
            )
        name, parts, is_finite = self.generations.read(which)
        if is_finite is False:
            raise NewtritonError(
                f"{self.path} has weights that are not finite in {which!r}: resume "
                f"{PREVIOUS!r} or {BEST!r}, whose are, or begin another run with smaller steps"
            )
        try:
            described, state = self._decoded(parts, model, label(optimizer))
            history = History.parsed(parts[HISTORY].decode())
            within = None if state["within"] is None else Within.parsed(state["within"], history)
            changed = self._changed(described, state["optimizer"], optimizer)
            with self._taken_over(state, model, optimizer, sources(data)):
                self.generations.make_last(name)
        except OSError as error:
            raise unwritable(self.path, error) from error
        except Exception as error:  # what a part raises that a state does not fit
            reason = str(error) or type(error).__name__
            raise NewtritonError(f"{self.path} cannot be gone on with: {reason}") from error
        return Resumed(history, within, changed)

    def records(self) -> History:
        """Returns the history of what was saved last; nothing else is read, and nothing changes.

        Raises:
            NewtritonError: there is no saved state, or its records are damaged.
        """
        self._check_open()
        if not self.generations.exist:
            raise NewtritonError(f"{self.path} holds no run, or none of which an epoch is complete")
        _, parts, _ = self.generations.read(wanted=(HISTORY,))
        try:
            return History.parsed(parts[HISTORY].decode())
        except ValueError as error:
            raise NewtritonError(f"{self.path} holds a damaged run: {error}") from error

    @staticmethod
    def _decoded(
        parts: Mapping[str, bytes], model: Stateful, trained_by: str
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns what a generation's files say, and the state they hold, the model's with it."""
        described = parsed(parts[STATE])
        if described["format"] != FORMAT:
            raise NewtritonError(
                f"it was written by another version of newtriton, in format {described['format']}, "
                f"not {FORMAT}: finish it with that version"
            )
        if described["optimizer"] != trained_by:
            raise NewtritonError(
                f"it was trained by {described['optimizer']}, not by {trained_by}: resume it "
                "with that, or begin another run in another folder"
            )
        device = getattr(model, "device", torch.device("cpu"))
        decoder = Decoder(load(parts[TENSORS]), device, *_flat_of(model))
        state = {name: decoder(part) for name, part in described["state"].items()}
        if described["network"] != _network(model):
            raise NewtritonError(
                "it is of another network or loss, or was written by another version of newtriton, "
                "which makes another graph of it: resume it with the same"
            )
        weights = state["model"] if "model" in state else load(parts[WEIGHTS])
        return described, {"model": weights, **state}

    def _changed(self, described: Mapping[str, Any], state: Any, optimizer: object) -> str:
        """Returns what is said of arguments of the optimizer that are others than they were."""
        if "arguments" not in described:
            return ""  # a folder of an earlier version
        changed = changed_arguments(described["arguments"], optimizer)
        if not changed:
            return ""
        listed = ", ".join(f"{n} {was!s:.200} → {now!s:.200}" for n, (was, now) in changed.items())
        held = [name for name in changed if name in _names(state)]
        counts = "the new ones count from here on"
        if held:
            rest = f"; {counts} for the rest" if len(held) < len(changed) else ""
            own = f"its own {', '.join(held)}, which a new run from its weights does not"
            counts = f"the saved state goes on with {own}{rest}"
        return (
            f"{self.path}: {type(optimizer).__name__} is made with other options than the run was "
            f"saved with ({listed}): {counts}"
        )

    @staticmethod
    @contextmanager
    def _taken_over(
        state: Mapping[str, Any], model: Stateful, optimizer: Stateful, drawn: Mapping[str, Source]
    ) -> Iterator[None]:
        """Restores all parts of a run, or none where one of them, or what comes then, fails."""
        if (state["data"].keys() ^ drawn.keys()) - {"cuda"}:  # which may not have been in use
            raise NewtritonError(
                f"its data drew from {', '.join(state['data'])}, these draw from "
                f"{', '.join(drawn)}: give data of the same kind"
            )
        parts = {
            "model": Source(model.state_dict, model.load_state_dict),
            "optimizer": Source(optimizer.state_dict, optimizer.load_state_dict),
            **drawn,
        }
        wanted = {"model": state["model"], "optimizer": state["optimizer"], **state["data"]}
        before = {name: part.get() for name, part in parts.items()}
        try:
            for name, part in parts.items():
                if name in wanted:
                    part.set(wanted[name])
            yield
        except BaseException:
            for name, part in parts.items():
                part.set(before[name])
            raise

    def _check_open(self) -> None:
        """Raises an error where the folder holds a run of an earlier version, or is closed."""
        if os.path.isdir(self.path) and not os.access(self.path, os.R_OK | os.X_OK):
            raise unreadable(self.path, "Permission denied")
        if os.path.lexists(self.path / "state.pt"):
            raise NewtritonError(
                f"{self.path} holds a run of an earlier version of newtriton (state.pt, which is "
                "pickled and not read any more): finish it with that version, or choose another "
                "folder"
            )

    def _check_options(self) -> None:
        """Raises an error where the saved options are not the present ones."""
        path = self.path / OPTIONS
        if not os.path.lexists(path):
            if self.generations.exist:
                return  # moved away by someone who vouches for the present ones
            raise NewtritonError(f"{self.path} holds no run to resume")
        try:
            saved = dict(read_json(path))
        except (ValueError, TypeError) as error:
            raise NewtritonError(
                f"{path} is damaged ({error}): move it away to go on with the present options"
            ) from error
        for name, value in self.options.items():
            before = saved.get(name, self.defaults.get(name))
            if before != value:
                raise NewtritonError(
                    f"{self.path} was started with {name} {before!s:.200}, not {value}: resume it "
                    "with the same options"
                )


def states_of(data: Any) -> dict[str, Any]:
    """Returns the states of all that data draw from, those of a pass under way."""
    own = {"data": data.state_dict()} if is_stateful(data) else {}
    return {**{name: source.get() for name, source in sources(data).items()}, **own}


def rest_of(data: Any, within: Within, model: Placed) -> Iterator[Any]:
    """Returns the batches that are left of an epoch in the middle of which a run goes on.

    Data with a state of their own have been told where they are. Others pass over the batches that
    came before, drawing again from where the epoch began.

    Raises:
        NewtritonError: the data have no batch that is left.
    """
    if is_stateful(data):
        return iter(data)
    now = states_of(data)
    set_back(data, within.start)
    batches = iter(data)
    passed = [*islice(batches, within.batches - 1, within.batches)]
    if not passed:
        raise NewtritonError(
            f"{within.batches} batches of an epoch have been stepped on, and the data have fewer: "
            "resume the run with the same data"
        )
    if mark_of(*moved(passed[0], model)) != within.mark:
        warnings.warn(
            f"batch {within.batches} is not what it was before: the run goes on with other data "
            "than it would have had; to the bit, it goes on with data that draw from the "
            "generators of PyTorch, NumPy or Python alone",
            stacklevel=2,
        )
    set_back(data, now)
    return batches


def _weights(model: Stateful, average: Averaged | None) -> dict[str, Tensor]:
    """Returns the weights on the host: the model's, or those of an average."""
    with nullcontext() if average is None else average.in_place(model):
        weights = model.state_dict()
    return {
        name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in weights.items()
    }


def _names(state: Any) -> set[Any]:
    """Returns the names of the values that a state holds, at any depth."""
    if isinstance(state, Mapping):
        inner = {n: part for n, part in state.items() if isinstance(part, Mapping | list)}
        return {*(state.keys() - inner.keys()), *_names([*inner.values()])}
    return {name for part in state for name in _names(part)} if isinstance(state, list) else set()


def _flat_of(model: Any) -> tuple[Any, ...]:
    """Returns what is needed to save a flat vector of a model by its parameters' names."""
    layout = getattr(model, "layout", None)
    return () if layout is None else (layout.numel, layout.torch_views)


def _network(model: Any) -> str:
    """Returns a digest of the graph of a model's loss; "" for what is no compiled model."""
    if not isinstance(model, Compiled):
        return ""
    digest = hashlib.sha256()
    alone = model.parallel is None  # the network is the same, however many ranks train it
    traced = model.programs[True].traced if alone else model.traced()
    for line in structure([traced.loss]):
        digest.update(line.encode())
    return digest.hexdigest()[:16]


def _measure(history: History) -> float:
    """Returns what the best epoch has the least of: loss on validation data, or in training."""
    if not history.epochs:
        return math.inf
    epoch = history.epochs[-1]
    loss = epoch.loss if epoch.validation_loss is None else epoch.validation_loss
    return math.inf if math.isnan(loss) else loss
