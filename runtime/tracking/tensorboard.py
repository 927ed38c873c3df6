"""The stream as TensorBoard's event files."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ...compiler.graph.calls import Checked
from ..paths import path_of
from .events import Event, Place, number_of, place_of, scalars_of
from .tracker import Tracker, library

FILES = "events.out.tfevents.*"  # what TensorBoard's files are called


class TensorBoard(Checked, Tracker):
    """Writes the scalars of a run as TensorBoard's event files; `fit(log_dir=…)` makes one.

    All are drawn against the number of updates. A run that goes on writes another file into the
    folder, which hides what the others have beyond the place where it goes on.

    Args:
        log_dir: the folder.

    Raises:
        NewtritonError: the folder is none that there can be, or TensorBoard is not installed.

    Examples:
        Where tensorboard is installed:

        >>> import newtriton as nt
        >>> nt.TensorBoard("runs/mine/events").log_dir  # doctest: +SKIP
        PosixPath('runs/mine/events')
    """

    def __init__(self, log_dir: str | Path) -> None:
        self.log_dir = path_of("log_dir", log_dir)
        writer = library("torch.utils.tensorboard", "tensorboard", f"log_dir={str(log_dir)!r}")
        self._make: Callable[..., Any] = partial(writer.SummaryWriter, str(self.log_dir))
        self._writer: Any = None

    def begin(self, event: Event) -> Place:
        """Opens a new file in the folder."""
        place, self.run = place_of(event), event["run"]
        goes_on = place.steps > 0 and any(self.log_dir.glob(FILES))
        self._writer = self._make(purge_step=place.steps + 1) if goes_on else self._make()
        self._writer.add_text("run", f"```json\n{json.dumps(event, indent=1)}\n```", place.steps)
        return place if goes_on else Place()

    def record(self, event: Event) -> None:
        """Writes the scalars of a step or an epoch, and all that has been held back at an epoch."""
        for name, value in scalars_of(event).items():
            self._writer.add_scalar(name, value, number_of(event))
        if event["event"] == "epoch":
            self._writer.flush()

    def end(self, event: Event) -> None:
        """Ends the writer's thread, and closes its file."""
        if self._writer is not None:
            self._writer.close()
        self._writer = None
