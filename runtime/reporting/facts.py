"""What is said of a run: its results, what went wrong, what it was made with."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..tracking.events import BEGINNINGS, ENDED, FAILED, INTERRUPTED, RESUMED
from ..training.history import History
from .reading import Run

REASONS = 5  # for which steps were refused, that are listed
REFUSED = "the step was refused: "  # what a status begins with, which goes without saying
FIGURE = re.compile(r"[-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|nan|inf)")  # a number in a sentence
ROOMS = ("optimizer", "model", "data")  # of what is told of a run, beside its options


class Fact(NamedTuple):
    """A result of a run.

    Attributes:
        name: what it is called.
        value: the number, exactly; None where there is none.
        shown: the number as it is read.
        note: what is said beside it.
        better: 1 where more is better, −1 where less is, 0 where neither is.
    """

    name: str
    value: float | None
    shown: str
    note: str = ""
    better: int = 0


def facts_of(run: Run) -> list[Fact]:
    """Returns the results of a run: losses, accuracies, time and steps."""
    history = run.history
    epochs, last = history.epochs, history.epochs[-1] if history.epochs else None
    accuracies = {e: e.validation_accuracy for e in epochs if e.validation_accuracy is not None}
    losses = {e: x for e in epochs if (x := e.validation_loss) is not None and math.isfinite(x)}
    facts = []
    if accuracies:
        best = max(accuracies, key=lambda e: (accuracies[e], -e.number))
        facts.append(_share("Best accuracy", accuracies[best], f"epoch {best.number}"))
        facts.append(_share("Final accuracy", last.validation_accuracy if last else None))
    if losses:
        best = min(losses, key=lambda e: (losses[e], e.number))
        facts.append(_loss("Best validation loss", losses[best], f"epoch {best.number}"))
    if last is not None and last.validation_loss is not None:
        facts.append(_loss("Final validation loss", last.validation_loss))
    trained = history.steps[-1]["loss"] if last is None else last.loss
    facts.append(_loss("Final training loss", trained, "" if last else "last step"))
    steps = history.count or (last.steps if last else 0)
    seconds = history.seconds or (last.seconds if last else 0.0)
    facts += [
        Fact("Steps", steps, f"{steps:,}", counted(len(epochs), "epoch")),
        Fact(
            "Seconds", seconds, shown(seconds), f"{shown(1e3 * seconds / max(steps, 1))} ms a step"
        ),
    ]
    if any("accepted" in step for step in history.steps):
        refused = len(refusals(history))
        facts.append(Fact("Refused steps", refused, f"{refused:,}", better=-1))
    return facts


def shown(value: float) -> str:
    """Returns a number with four digits.

    Examples:
        >>> from newtriton.runtime.reporting.facts import shown
        >>> shown(0.0123456), shown(1234567.0), shown(1.5e-7), shown(3.0)
        ('0.01235', '1,234,567', '1.5e-07', '3')
    """
    if not math.isfinite(value):
        return str(value)
    if abs(value) >= 1e4 and abs(value) < 1e9:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def counted(number: int, name: str) -> str:
    """Returns a number of things.

    Examples:
        >>> from newtriton.runtime.reporting.facts import counted
        >>> counted(1, "step"), counted(2000, "step")
        ('1 step', '2,000 steps')
    """
    return f"{number:,} {name}{'' if number == 1 else 's'}"


def refusals(history: History) -> list[Mapping[str, Any]]:
    """Returns the records of steps that were not accepted."""
    return [step for step in history.steps if step.get("accepted") is False]


def troubles_of(run: Run) -> list[str]:
    """Returns what went wrong in a run, a sentence each."""
    history, said = run.history, []
    if history.interrupted:
        said.append("The run was interrupted: it can be resumed.")
    ends = [event for event in run.events if event["event"] in (INTERRUPTED, FAILED)]
    for event in ends:
        where = f"after {event['steps']:,} steps, {event.get('time', '')}".rstrip(", ")
        if event["event"] == FAILED:
            said.append(f"It failed {where}: {event.get('error', 'no reason is known')}.")
        elif event is not run.events[-1]:
            said.append(f"It was interrupted {where}, and went on.")
    said += _broken_off(run)
    losses = {
        "step": [(step["step"], step["loss"]) for step in history.steps],
        "epoch": [(e.number, e.loss + (e.validation_loss or 0.0)) for e in history.epochs],
    }
    for name, found in losses.items():
        bad = [number for number, loss in found if not math.isfinite(loss)]
        if bad:
            said.append(
                f"The losses of {counted(len(bad), name)} are not finite, first of {name} "
                f"{bad[0]:,}."
            )
    return said + _refused(history) + _thinned(history)


def options_of(run: Run) -> dict[str, str]:
    """Returns what a run was made with, by name."""
    told = run.told
    options = dict(told.get("options") or {})
    for room in ROOMS:
        inside = told.get(room)
        for name, value in (inside if isinstance(inside, Mapping) else {}).items():
            key = f"{room} {name}".removesuffix(" class")
            options[f"{room} class" if key in options else key] = value
    return {name: text(value) for name, value in options.items() if value not in (None, {}, [])}


def versions_of(run: Run) -> dict[str, str]:
    """Returns the versions and the machine that a run was made with."""
    told = run.told
    found: dict[str, str] = {}
    for room in ("versions", "machine"):
        inside = told.get(room)
        if isinstance(inside, Mapping):
            found |= {str(name): text(value) for name, value in inside.items()}
    begun = [event["time"] for event in run.events if event["event"] in BEGINNINGS[:1]]
    return found | ({"begun": text(begun[0])} if begun else {})


def differing(tables: Sequence[Mapping[str, str]]) -> list[str]:
    """Returns the names under which tables do not all have the same."""
    names = dict.fromkeys(name for table in tables for name in table)
    return [name for name in names if len({table.get(name) for table in tables}) > 1]


def text(value: object) -> str:
    """Returns a value of an option as text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={text(part)}" for name, part in value.items())
    if isinstance(value, list):
        return ", ".join(map(text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _share(name: str, value: float | None, note: str = "") -> Fact:
    return Fact(name, value, "–" if value is None else f"{value:.2%}", note, 1)


def _loss(name: str, value: float, note: str = "") -> Fact:
    return Fact(name, value, shown(value), note, -1)


def _broken_off(run: Run) -> Iterable[str]:
    """Yields how a run ended that did not say that it had."""
    began, open_ = 0, False
    for event in run.events:
        if event["event"] in BEGINNINGS:
            if open_:
                yield f"It ended without a word, and went on after {event['steps']:,} steps."
            began, open_ = began + (event["event"] == RESUMED), True
        elif event["event"] in (ENDED, INTERRUPTED, FAILED):
            open_ = False
    if open_:
        yield "It has not said that it ended: it goes on, or was killed."


def _refused(history: History) -> list[str]:
    """Returns how many steps were refused, and why."""
    refused = refusals(history)
    if not refused:
        return []
    said = (str(step.get("status", "")).removeprefix(REFUSED) for step in refused)
    kinds = dict[str, list[str]]()  # of reasons that differ in their numbers alone
    for reason in said:
        kinds.setdefault(FIGURE.sub("…", reason), []).append(reason)
    often = sorted(kinds.values(), key=len, reverse=True)[:REASONS]
    listed = "; ".join(
        of[0] if len(of) == 1 else f"{of[0]}, and {len(of) - 1:,} like it" for of in often
    )
    longest = max((step.get("rejected") or 0 for step in refused), default=0)
    row = f" Up to {longest} in a row could not be made." if longest > 1 else ""
    were = "was" if len(refused) == 1 else "were"
    return [f"{counted(len(refused), 'step')} {were} refused: {listed}.{row}"]


def _thinned(history: History) -> list[str]:
    """Returns how many records there are, where those are not all steps."""
    if history.count <= len(history.steps):
        return []
    return [
        f"Of {history.count:,} steps {len(history.steps):,} are recorded: the last ones, and fewer "
        "of the others."
    ]
