"""The stream to trackio."""

from __future__ import annotations

from typing import Any

from ...compiler.graph.calls import Checked
from .events import Event, Place, number_of, place_of, scalars_of
from .tracker import Tracker, began, library, plain


class Trackio(Checked, Tracker):
    """Logs the scalars of a run to trackio, against the number of updates.

    The run's options and versions are the configuration there. A run that goes on goes on in the
    run of the same name there, after the steps that it has.

    Args:
        project: the project.
        init: keywords of `trackio.init`, such as `name` and `space_id`. The name is the run's own
            unless given.

    Raises:
        NewtritonError: trackio is not installed; when a run begins, it cannot begin there.

    Examples:
        Where trackio is installed:

        >>> import newtriton as nt
        >>> tracker = nt.Trackio("digits")  # doctest: +SKIP
    """

    def __init__(self, project: str = "newtriton", **init: Any) -> None:
        self._library = library("trackio", "trackio", "Trackio")
        self.project, self.init = project, init
        self._there: Any = None

    def begin(self, event: Event) -> Place:
        """Makes a run there, or goes on with it."""
        self.run, place = event["run"], place_of(event)
        options = {"name": self.run, "resume": "allow", "embed": False, **self.init}
        with began("trackio"):
            self._there = self._library.init(self.project, config=plain(event), **options)
        # Nothing public says how far a run has come there.
        following = getattr(self._there, "_next_step", place.steps + 1)
        return Place(following - 1, place.epochs) if following > 1 else Place()

    def record(self, event: Event) -> None:
        """Logs the scalars of a step or an epoch."""
        self._there.log(scalars_of(event), step=number_of(event))

    def end(self, event: Event) -> None:
        """Ends the run there."""
        if self._there is not None:
            self._there.finish()
        self._there = None
