"""When a run is saved: after each epoch, every so many steps or minutes, and when it has to end."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...compiler.graph.errors import NewtritonError, quoted
from ...compiler.graph.options import check_count, check_number, check_option
from ..data.sources import not_restored
from ..optimizers.averaging import Averaged
from ..paths import path_of
from ..tracking.json_lines import JSONLines
from .encoding import Encoder
from .generations import LAST, WHICH
from .history import History
from .locking import locked
from .runs import EVENTS, Resumed, RunFolder, Within, states_of
from .signals import Noted

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
RESUME = ("never", "auto", *WHICH)


@dataclass(frozen=True)
class Interval:
    """How often a run is saved in the middle of an epoch.

    Attributes:
        steps: after how many steps, None for no number.
        seconds: after what time, None for none.
    """

    steps: int | None = None
    seconds: float | None = None

    @classmethod
    def of(cls, value: object) -> Interval:
        """Returns the interval that a number of steps, or text such as "500" or "10m", stands for.

        Raises:
            NewtritonError: it stands for none.
        """
        if value is None:
            return cls()
        text = value if isinstance(value, str) else ""
        if timed := re.fullmatch(r"([0-9]*\.?[0-9]+)([smh])", text):
            number = check_number("checkpoint_every", float(timed[1]), above=0.0)
            return cls(seconds=number * UNITS[timed[2]])
        if isinstance(value, str) and not text.isdecimal():
            raise NewtritonError(
                f"checkpoint_every is {value!r}: give a number of steps, or a time in seconds, "
                "minutes or hours, as in 30s, 10m, 2h"
            )
        return cls(steps=check_count("checkpoint_every", int(text) if text else value))


@dataclass
class Saving:
    """Saves a run in its folder while it goes on.

    Attributes:
        folder: the folder.
        model: the model that is trained.
        optimizer: the optimizer that takes the steps.
        data: the data that are trained on.
        average: the average that is saved as the weights, None for the parameters themselves.
        interval: how often it is saved in the middle of an epoch.
        signal: the signal after which it is saved and ends.
        log: the file of events in the folder.
    """

    folder: RunFolder
    model: Any
    optimizer: Any
    data: Any
    average: Averaged | None
    interval: Interval
    signal: Noted
    log: JSONLines = field(init=False)
    _steps: int = field(default=0, init=False)
    _saved_at: float = field(default_factory=time.monotonic, init=False)
    _told: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.log = JSONLines(self.folder.path / EVENTS, steps=False)
        for part in (self.model, self.optimizer):
            if not hasattr(part, "state_dict") or not hasattr(part, "load_state_dict"):
                raise NewtritonError(
                    f"checkpoint: a {type(part).__name__} has no state_dict and load_state_dict: "
                    "give one that has, or leave checkpoint out"
                )
        for name in self.model.state_dict():
            if name.encode(errors="replace").decode() != name:
                raise NewtritonError(
                    f"checkpoint: the name {quoted(name)} is text that is no Unicode, as files "
                    "have: give the layer another one"
                )

    @contextmanager
    def begun(self, resume: str) -> Iterator[Resumed]:
        """Begins a new run, or goes on with the one in the folder, which is locked meanwhile.

        Raises:
            NewtritonError: `resume` is none of `RESUME`, optimizer or data have a state that cannot
                be saved, another process trains in the folder, or what `RunFolder` raises.
        """
        check_option("resume", resume, RESUME)
        Encoder()([self.optimizer.state_dict(), states_of(self.data)], "the state")
        there, path = self.folder.generations.exist, self.folder.path
        if resume == "never":
            self.folder.check_new()
        if resume in ("never", "auto"):
            self.folder.make()
        with locked(path) if there or resume in ("never", "auto") else nullcontext():
            there = self.folder.generations.exist  # the one before may have made it meanwhile
            if resume == "never" or (resume == "auto" and not there):
                yield Resumed(self.folder.begin())
                return
            which = LAST if resume == "auto" else resume
            yield self.folder.load(self.model, self.optimizer, self.data, which)

    def is_due(self) -> bool:
        """Counts a step; whether the run has to be saved after it."""
        self._steps += 1
        of_steps = self.interval.steps is not None and self._steps >= self.interval.steps
        elapsed = time.monotonic() - self._saved_at
        of_time = self.interval.seconds is not None and elapsed >= self.interval.seconds
        return of_steps or of_time or self.signal.number is not None

    def save(self, history: History, within: Within | None = None, state: Any = None) -> None:
        """Saves the run; says once what could not be restored in the middle of an epoch.

        Args:
            history: the records of the run.
            within: where the run is in an epoch.
            state: the optimizer's, where it is more than the optimizer here has.
        """
        missing = None if within is None or self._told else not_restored(self.data)
        if missing is not None:
            self._told = True
            warnings.warn(
                f"{self.folder.path}: {missing} is not restored when the run is resumed in the "
                "middle of an epoch; the batches before are read again and passed over",
                stacklevel=2,
            )
        parts = self.model, self.optimizer, self.data
        self.folder.save(*parts, history, self.average, within, state)
        self._steps, self._saved_at = 0, time.monotonic()


def folder_of(checkpoint: str | Path | RunFolder, keep: int) -> RunFolder:
    """Returns the folder of a run."""
    if isinstance(checkpoint, RunFolder):
        return checkpoint
    return RunFolder(path_of("checkpoint", checkpoint), keep=check_count("keep", keep))
