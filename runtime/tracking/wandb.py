"""The stream to Weights & Biases."""

from __future__ import annotations

from typing import Any

from ...compiler.graph.calls import Checked
from .events import ENDED, Event, Place, number_of, place_of, scalars_of
from .tracker import Tracker, began, library, plain


class WandB(Checked, Tracker):
    """Logs the scalars of a run to Weights & Biases, against the number of updates.

    The run's options and versions are the configuration there. A run that goes on goes on in the
    same run there; what that has already is not logged again. Offline nothing is known of what
    was logged before: a folder of its own gets all of the run, with the same id.

    Args:
        project: the project.
        init: keywords of `wandb.init`, such as `entity`, `name` and `mode="offline"`.

    Raises:
        NewtritonError: wandb is not installed; when a run begins, it cannot begin there.

    Examples:
        Where wandb is installed:

        >>> import newtriton as nt
        >>> tracker = nt.WandB("digits", mode="offline")  # doctest: +SKIP
    """

    def __init__(self, project: str | None = None, **init: Any) -> None:
        self._library = library("wandb", "wandb", "WandB")
        self.project, self.init = project, init
        self._there: Any = None

    def begin(self, event: Event) -> Place:
        """Makes a run there, or goes on with it."""
        self.run = event["run"]
        options = {"project": self.project, "id": self.run, "resume": "allow", **self.init}
        with began("Weights & Biases"):
            self._there = self._library.init(config=plain(event), **options)
            if not self._there.resumed:
                return Place()
            epochs = self._there.summary.get("epoch/number") or place_of(event).epochs
            return Place(self._there.starting_step - 1, int(epochs))

    def record(self, event: Event) -> None:
        """Logs the scalars of a step or an epoch."""
        self._there.log(scalars_of(event), step=number_of(event))

    def end(self, event: Event) -> None:
        """Ends the run there, as one that has failed where it has."""
        if self._there is not None:
            self._there.finish(exit_code=0 if event["event"] == ENDED else 1)
        self._there = None
