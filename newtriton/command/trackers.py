"""Trackers by name, for `newtriton train --track`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from ..compiler.graph.options import check_option
from ..runtime.tracking.json_lines import JSONLines
from ..runtime.tracking.mlflow import MLflow
from ..runtime.tracking.tensorboard import TensorBoard
from ..runtime.tracking.tracker import Tracker
from ..runtime.tracking.trackio import Trackio
from ..runtime.tracking.wandb import WandB

# What a tracker is made of what stands after its name, and where that is left out.
TRACKERS: dict[str, tuple[Callable[[str], Tracker], Callable[[Path], str]]] = {
    "json": (JSONLines, lambda folder: str(folder / "steps.jsonl")),
    "tensorboard": (TensorBoard, lambda folder: str(folder / "tensorboard")),
    "wandb": (WandB, lambda _: "newtriton"),
    "mlflow": (MLflow, lambda _: "newtriton"),
    "trackio": (Trackio, lambda _: "newtriton"),
}


def add_track(command: argparse.ArgumentParser) -> None:
    """Adds the option."""
    command.add_argument(
        "--track", action="append", metavar="NAME[=WHERE]",
        help=f"tell a tracker of every step, one of {', '.join(TRACKERS)}; may be repeated. WHERE "
        "is a file for json, a folder for tensorboard, else a project (default: DIR/steps.jsonl, "
        "DIR/tensorboard, newtriton)",
    )  # fmt: skip


def trackers(named: Sequence[str] | None, folder: Path) -> list[Tracker]:
    """Returns the trackers that are named, for a run in a folder.

    Raises:
        NewtritonError: there is none of a name, or its library is not installed.
    """
    made = []
    for text in named or ():
        name, _, where = text.partition("=")
        check_option("--track", name, tuple(TRACKERS))
        make, default = TRACKERS[name]
        made.append(make(where or default(folder)))
    return made
