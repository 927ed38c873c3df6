"""The one stream through which trackers hear of a run."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ...compiler.graph.errors import one_line
from .events import BEGUN, FAILED, RESUMED, STEP, Event, Place, in_order, now
from .tracker import Tracker


class Stream:
    """Sends the events of a run to its trackers, and lets none of them end the run.

    Args:
        trackers: the trackers.

    Attributes:
        following: the trackers that still follow, each with the place up to which it has the run.
    """

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = list(trackers)
        self.following: list[tuple[Tracker, Place]] = []

    def begin(
        self,
        about: Mapping[str, Any],
        steps: Sequence[Mapping[str, Any]],
        epochs: Sequence[Mapping[str, Any]],
        run: str | None = None,
    ) -> None:
        """Tells that a run begins, or goes on; trackers get the records that they lack.

        Args:
            about: what is told about the run.
            steps: the records of the steps so far.
            epochs: those of the epochs.
            run: what the run is called, where it has been begun before; a run that has records is
                otherwise the one that a tracker knows.

        Raises:
            Exception: what a tracker cannot begin for; those that have begun are told.
        """
        if run is None and steps:
            run = next((tracker.run for tracker in self._trackers if tracker.run), None)
        place = Place(steps[-1]["step"] if steps else 0, len(epochs))
        begun: Event = {
            "event": RESUMED if steps or run else BEGUN,
            "run": run or uuid.uuid4().hex,
            "time": now(), **place._asdict(), **about,
        }  # fmt: skip
        with self.failing(lambda: place):
            for tracker in self._trackers:
                self.following.append((tracker, tracker.begin(begun)))
        for event in in_order(steps, epochs):
            self.send(event)

    def send(self, event: Event) -> None:
        """Sends a step or an epoch to the trackers that do not have it."""
        number = event["step"] if event["event"] == STEP else event["number"]
        for tracker, has in [*self.following]:
            if number > (has.steps if event["event"] == STEP else has.epochs):
                self._told(tracker, tracker.record, event)

    def end(self, kind: str, place: Place, **what: Any) -> None:
        """Tells that the run has ended, and lets the trackers go.

        Args:
            kind: how it has ended.
            place: how far it has come.
            what: what else is told.
        """
        event = {"event": kind, "time": now(), **place._asdict(), **what}
        for tracker, _ in [*self.following]:
            self._told(tracker, tracker.end, event)
        self.following.clear()

    @contextmanager
    def failing(self, place: Callable[[], Place]) -> Iterator[None]:
        """Tells of an error that comes through a `with` statement, where the run stands then."""
        try:
            yield
        except BaseException as error:
            said = one_line(f"{type(error).__name__}: {error}")
            self.end(FAILED, place(), error=said)
            raise

    def _told(self, tracker: Tracker, method: Callable[[Event], Any], event: Event) -> None:
        """Tells a tracker something; one that fails is told nothing more."""
        try:
            method(event)
        except Exception as error:  # whatever a library or a user's own tracker raises
            self.following = [(t, has) for t, has in self.following if t is not tracker]
            said = one_line(str(error)) or type(error).__name__
            warnings.warn(
                f"{type(tracker).__name__} follows the run no longer ({said}): training goes on, "
                "and the history has all of it",
                stacklevel=2,
            )
