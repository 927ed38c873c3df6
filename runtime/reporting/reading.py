"""What a report is made of: the records of runs, from their folders or as histories."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...compiler.graph.errors import NewtritonError, quoted
from ...compiler.graph.options import check_mapping
from ..diagnostics.densities import Density
from ..disk import read_json
from ..paths import path_of
from ..tracking.events import BEGINNINGS, Event
from ..tracking.json_lines import read_events
from ..training.generations import FOLDER
from ..training.history import History
from ..training.runs import EVENTS, HISTORY, OPTIONS, RunFolder

SPECTRUM = "spectrum.json"  # the file in a run's folder that `Density.save` wrote
RunLike = str | Path | History
Runs = RunLike | Sequence[RunLike] | Mapping[str, RunLike]


@dataclass(frozen=True)
class Run:
    """What is known of a run.

    Attributes:
        name: what it is called.
        history: its records.
        events: how it began, went on and ended, where that has been kept.
        options: what it was started with, where there is no event that says so.
        spectrum: the spectrum that was taken; None where none was.
    """

    name: str
    history: History
    events: Sequence[Event] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    spectrum: Density | None = None

    @property
    def told(self) -> Mapping[str, Any]:
        """What was told of the run when it last began or went on; nothing where nobody did."""
        told = [event for event in self.events if event["event"] in BEGINNINGS]
        return told[-1] if told else {"options": self.options}


def runs_of(runs: Runs) -> list[Run]:
    """Returns runs by the names that are given, or those of their folders.

    Args:
        runs: folders and histories: one, several, or several by name.

    Raises:
        NewtritonError: there is none, a folder holds none or a damaged one, or a value is neither.
    """
    if isinstance(runs, Mapping):
        named = [(name, _read(run)) for name, run in check_mapping("runs", runs).items()]
    else:
        alone = isinstance(runs, (str, os.PathLike, History))
        several = [runs] if alone else _listed(runs)
        named = [*zip(_names(several), map(_read, several), strict=True)]
    if not named:
        raise NewtritonError("there are no runs: give the folder of one")
    found = [Run(name, **parts) for name, parts in named]
    empty = [run.name for run in found if not run.history.steps and not run.history.epochs]
    if empty:
        raise NewtritonError(f"nothing has been recorded of run {quoted(empty[0])}: train it first")
    return found


def _listed(runs: object) -> list[Any]:
    """Returns several runs as a list."""
    if not isinstance(runs, Iterable):
        raise NewtritonError(f"runs are {quoted(runs)}: give folders of runs, or histories")
    return list(runs)


def _names(runs: Sequence[object]) -> list[str]:
    """Returns a name for each run: that of its folder, or more of its path where two have one."""
    if len(runs) == 1 and isinstance(runs[0], History):
        return ["run"]
    names = [_name(run, number) for number, run in enumerate(runs, 1)]
    often = Counter(names)
    paths = [str(run) if isinstance(run, (str, os.PathLike)) else "" for run in runs]
    names = [path if often[n] > 1 and path else n for n, path in zip(names, paths, strict=True)]
    often = Counter(names)
    return [f"{n} ({i})" if often[n] > 1 else n for i, n in enumerate(names, 1)]


def _name(run: object, number: int) -> str:
    """Returns what a run is called, by its folder or by its number."""
    if not isinstance(run, (str, os.PathLike)):
        return f"run {number}"
    path = Path(os.path.abspath(path_of("a run", run)))
    return path.parent.name if path.name == HISTORY else path.name


def _read(run: object) -> dict[str, Any]:
    """Returns what is known of a run but its name.

    Raises:
        NewtritonError: it is none.
    """
    if isinstance(run, History):
        return {"history": run}
    if not isinstance(run, (str, os.PathLike)):
        raise NewtritonError(f"a run is {quoted(run)}: give its folder, or a history")
    path = path_of("a run", run)
    if not path.exists():
        raise NewtritonError(f"{path} is not there: give the folder of a run")
    if not path.is_dir():
        return {"history": History.load(path)}
    plain = not (path / FOLDER).is_dir() and (path / HISTORY).is_file()
    history = History.load(path / HISTORY) if plain else RunFolder(path).records()
    return {"history": history, **_beside(path)}


def _beside(path: Path) -> dict[str, Any]:
    """Returns what lies beside the records in a run's folder."""
    found: dict[str, Any] = {}
    if (path / EVENTS).is_file():
        found["events"] = read_events(path / EVENTS)
    if (path / OPTIONS).is_file():
        found["options"] = check_mapping(f"the options in {path}", read_json(path / OPTIONS))
    if (path / SPECTRUM).is_file():
        found["spectrum"] = Density.load(path / SPECTRUM)
    return found
