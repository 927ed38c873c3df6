"""Runs that trackers follow, unbroken, gone on with and broken off; stand-ins for libraries."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import newtriton as nt
from newtriton.runtime.tracking.events import Event, Place

from ..training.damage import Parts


class Recorder(nt.Tracker):
    """Keeps all events, and says what it is told to that it has already."""

    def __init__(self, has: Place | None = None) -> None:
        self.events: list[Event] = []
        self.has = has

    def begin(self, event: Event) -> Place:
        self.events.append(event)
        place = super().begin(event)
        return place if self.has is None else self.has

    def record(self, event: Event) -> None:
        self.events.append(event)

    def end(self, event: Event) -> None:
        self.events.append(event)

    def numbers(self, kind: str) -> list[int]:
        """The numbers of the steps or epochs that came."""
        name = {"step": "step", "epoch": "number"}[kind]
        return [event[name] for event in self.events if event["event"] == kind]

    @property
    def kinds(self) -> list[str]:
        return [event["event"] for event in self.events]


def run(folder: Path, epochs: int, resume: str, *trackers: Any, **options: Any) -> nt.History:
    """Trains two steps an epoch, each of which is saved."""
    return Parts().train(folder / "run", epochs, resume, callbacks=trackers, **options)


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **contents: Any) -> ModuleType:
    """Puts a module in the place of a library's."""
    module = ModuleType(name)
    vars(module).update(contents)
    monkeypatch.setitem(sys.modules, name, module)
    return module


def missing(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Lets a library not be installed."""
    monkeypatch.setitem(sys.modules, name, None)
