"""What happens in a run, as events: dictionaries that JSON has, each with its kind under "event".

A run begins ("begun") or goes on ("resumed"), makes steps and epochs ("step", "epoch") and comes to
its end, an interrupt or an error ("ended", "interrupted", "failed").
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timezone
from typing import Any, NamedTuple

Event = dict[str, Any]
STEP, EPOCH = "step", "epoch"
BEGUN, RESUMED = BEGINNINGS = ("begun", "resumed")
ENDED, INTERRUPTED, FAILED = ENDINGS = ("ended", "interrupted", "failed")
COUNTERS = {STEP: ("step", "epoch"), EPOCH: ("steps",)}  # fields that are no measurements


class Place(NamedTuple):
    """How far a run has come.

    Attributes:
        steps: the number of its last step.
        epochs: the number of its last complete epoch.
    """

    steps: int = 0
    epochs: int = 0


def place_of(event: Event) -> Place:
    """Returns where a run stands that begins, goes on or ends."""
    return Place(event["steps"], event["epochs"])


def step_event(record: Mapping[str, Any]) -> Event:
    """Returns the event of a step, of which this is the record in a history."""
    return {"event": STEP, **record}


def epoch_event(record: Mapping[str, Any]) -> Event:
    """Returns the event of an epoch, of which these are the fields."""
    return {"event": EPOCH, **record}


def in_order(
    steps: Iterable[Mapping[str, Any]], epochs: Iterable[Mapping[str, Any]]
) -> Iterator[Event]:
    """Yields the events of records, each epoch after the last of its steps."""
    rest = iter(steps)
    step = next(rest, None)
    for epoch in epochs:
        while step is not None and step["step"] <= epoch["steps"]:
            yield step_event(step)
            step = next(rest, None)
        yield epoch_event(epoch)
    while step is not None:
        yield step_event(step)
        step = next(rest, None)


def scalars_of(event: Event) -> dict[str, float]:
    """Returns the numbers of a step or an epoch by the names that all trackers give them.

    Examples:
        >>> from newtriton.runtime.tracking.events import scalars_of
        >>> scalars_of({"event": "step", "step": 3, "epoch": 1, "loss": 0.5, "rho": None})
        {'step/loss': 0.5}
    """
    kind = event["event"]
    return {
        f"{kind}/{name}": float(value)
        for name, value in event.items()
        if isinstance(value, int | float) and name not in COUNTERS[kind]
    }


def number_of(event: Event) -> int:
    """Returns the number of updates that a step or an epoch stands at, the axis of all scalars."""
    return event["step"] if event["event"] == STEP else event["steps"]


def now() -> str:
    """Returns the time, as ISO 8601 has it, with its zone."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
