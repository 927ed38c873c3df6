"""The stream as a file of JSON, a line for each event."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ...compiler.graph.calls import Checked
from ...compiler.graph.errors import NewtritonError
from ...compiler.graph.options import check_flag
from ..disk import TEXT, opened, parsed, unwritable
from ..paths import path_of
from .events import BEGINNINGS, ENDINGS, EPOCH, STEP, Event, Place, place_of
from .tracker import Tracker

NEW = ".new"  # what ends the name of a file until it takes the place of another
HEAD = 1 << 16  # bytes of the first line, at most
COUNTED = {  # the numbers that an event has, by its kind
    STEP: ("step",),
    EPOCH: ("number", "steps"),
    **dict.fromkeys((*BEGINNINGS, *ENDINGS), ("steps", "epochs")),
}
OTHER = ""  # what stands for a run where the file has other lines


class JSONLines(Checked, Tracker):
    """Writes every event of a run as a line of JSON, at once: `tail -f` shows each step.

    NaN and Infinity stand as Python's `json` writes and reads them. A run that goes on goes on in
    the same file: steps and epochs beyond where it does, which a run that was killed may have made
    after it was saved, are cut off first, and so is a line that was not written to its end. So each
    step is there once.

    Args:
        path: the file, which is made where there is none.
        steps: whether steps are written, beside epochs, beginnings and ends.

    Raises:
        NewtritonError: a value is none that there can be; when a run begins, the file has another
            run or something else in it, or cannot be written.

    Examples:
        >>> import newtriton as nt
        >>> import torch
        >>> model = nt.compile(nt.Linear(2), (3,), nt.CrossEntropyLoss(), device="cpu")
        >>> data = [(torch.eye(3), torch.tensor([0, 1, 1]))]
        >>> lines = nt.JSONLines("run.jsonl")
        >>> history = nt.fit(model, nt.FITRE(model), data, progress=False, callbacks=[lines])
        >>> import json
        >>> [json.loads(line)["event"] for line in open("run.jsonl")]
        ['begun', 'step', 'epoch', 'ended']
    """

    def __init__(self, path: str | Path, *, steps: bool = True) -> None:
        self.path = path_of("path", path, "file")
        self.steps = check_flag("steps", steps)
        self._file: IO[bytes] | None = None

    @property
    def run(self) -> str | None:  # type: ignore[override]
        """What the run is called whose lines the file has; None where it has no line."""
        if not os.path.lexists(self.path):
            return None
        with opened(self.path) as file:
            head = file.readline(HEAD)
        if not head.endswith(b"\n") and len(head) < HEAD:
            return None  # a run that was killed at its first line, or an empty file
        try:
            name = parsed(head)["run"]
        except (ValueError, TypeError, KeyError):
            name = None
        return name if isinstance(name, str) else OTHER

    def begin(self, event: Event) -> Place:
        """Opens the file, without what it has beyond the place where the run goes on."""
        known, place = self.run, place_of(event)
        if known is not None and known != event["run"]:
            raise NewtritonError(
                f"{self.path} holds another run, or something else: choose another path, or move "
                "it away"
            )
        held = Place()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if known is not None:
                held = self._cut(place)
            self._file = open(self.path, "wb" if known is None else "ab")  # noqa: SIM115
        except OSError as error:
            raise unwritable(self.path, error) from error
        self.record(event)
        return held if self.steps else Place(place.steps, held.epochs)

    def record(self, event: Event) -> None:
        """Writes a line."""
        if self._file is not None and (self.steps or event["event"] != STEP):
            self._file.write(json.dumps(event).encode() + b"\n")
            self._file.flush()

    def end(self, event: Event) -> None:
        """Writes the last line."""
        self.record(event)
        if self._file is not None:
            self._file.close()
        self._file = None

    def _cut(self, place: Place) -> Place:
        """Leaves the lines up to a place, and returns up to where there are any."""
        new, held, whole = self.path.with_name(self.path.name + NEW), Place(), True
        with opened(self.path) as old, open(new, "wb") as kept:
            for line, event in _events(self.path, old):
                at = None if event is None else _at(event)
                if at is None or at.steps > place.steps or at.epochs > place.epochs:
                    whole = False
                    continue
                held = Place(max(held.steps, at.steps), max(held.epochs, at.epochs))
                kept.write(line)
        if whole:
            new.unlink()
        else:
            os.replace(new, self.path)
        return held


def read_events(path: Path) -> list[Event]:
    """Returns the events of a file of `JSONLines`, without a last line that was not written whole.

    Raises:
        NewtritonError: the file cannot be read, or holds something else.
    """
    with opened(path, TEXT) as file:
        return [event for _, event in _events(path, file) if event is not None]


def _events(path: Path, file: Iterator[bytes]) -> Iterator[tuple[bytes, Event | None]]:
    """Yields lines with their events, None for a last line that is not whole.

    Raises:
        NewtritonError: a line is no event.
    """
    for number, line in enumerate(file, 1):
        if not line.endswith(b"\n"):
            yield line, None
            return
        try:
            event = parsed(line)
            if not _is_event(event):
                raise ValueError("it is no event")
        except ValueError as error:
            raise NewtritonError(
                f"{path} is damaged at line {number} ({error}): move it away"
            ) from error
        yield line, event


def _at(event: Event) -> Place:
    """Returns the number of a step or an epoch; zeros of other events, which are never cut off."""
    if event["event"] == STEP:
        return Place(steps=event["step"])
    return Place(epochs=event["number"]) if event["event"] == EPOCH else Place()


def _is_event(event: object) -> bool:
    """Whether a value is an event, with the numbers that are counted."""
    if not isinstance(event, dict):
        return False
    counted = COUNTED.get(str(event.get("event")), ("",))
    return all(type(event.get(name)) is int for name in counted)
