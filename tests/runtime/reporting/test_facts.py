"""What is said of a run is what its records say."""

from __future__ import annotations

import math

from newtriton.runtime.reporting.facts import (
    differing,
    facts_of,
    options_of,
    shown,
    text,
    troubles_of,
    versions_of,
)
from newtriton.runtime.reporting.reading import Run
from newtriton.runtime.training.epoch import Epoch
from newtriton.runtime.training.history import History

from .records import diverged, history

TOLD = {
    "event": "begun", "run": "a", "time": "2026-01-01T00:00:00+00:00", "steps": 0, "epochs": 0,
    "options": {"net": "mlp", "set": {"every": [1, 2]}, "damping": None, "optimizer": "fitre"},
    "optimizer": {"class": "FITRE", "every": [1, 2]}, "model": {"parameters": 10},
    "versions": {"torch": "2.13.0"}, "machine": {"device": "cpu"},
}  # fmt: skip


def test_results_are_those_of_the_records() -> None:
    losses, shares = [0.5, math.nan, 0.25, 0.25, 0.75], [0.8, 0.9, 0.9, 0.7, 0.6]
    rows = zip(losses, shares, strict=True)
    epochs = [Epoch(n, 2 * n, 0.5 * n, 1 / n, *row) for n, row in enumerate(rows, 1)]
    found = {fact.name: fact for fact in facts_of(Run("a", History(epochs)))}
    assert [(n, f.value) for n, f in found.items()] == [
        ("Best accuracy", 0.9), ("Final accuracy", 0.6), ("Best validation loss", 0.25),
        ("Final validation loss", 0.75), ("Final training loss", 0.2),
        ("Steps", 10), ("Seconds", 2.5),
    ]  # fmt: skip
    assert found["Best accuracy"].note == "epoch 2", "the first of the best"
    assert found["Best validation loss"].note == "epoch 3"
    assert (found["Steps"].note, found["Seconds"].note) == ("5 epochs", "250 ms a step")


def test_without_validation_and_epochs_there_are_fewer() -> None:
    run = History(steps=history(3).steps)
    found = {fact.name: fact.value for fact in facts_of(Run("a", run))}
    assert [*found] == ["Final training loss", "Steps", "Seconds", "Refused steps"]
    assert found["Final training loss"] == run.steps[-1]["loss"]


def test_what_went_wrong_is_said() -> None:
    run = diverged()
    run.interrupted = True
    for step in run.steps[8:11]:
        step |= {"accepted": False, "rejected": step["step"] - 8, "status": "loss nan"}
    said = " ".join(troubles_of(Run("a", run)))
    assert "The run was interrupted: it can be resumed." in said
    assert "The losses of 3 steps are not finite, first of step 7." in said
    assert "4 steps were refused: loss nan, and 2 like it; it takes the loss from" in said
    assert "Up to 3 in a row could not be made." in said
    assert troubles_of(Run("a", history(3))) == []


def test_how_runs_ended_is_said() -> None:
    def end(kind: str, **more: object) -> dict:
        return {"event": kind, "steps": 3, "epochs": 1, "time": "then", **more}

    def said(*events: dict) -> list[str]:
        return troubles_of(Run("a", history(3), events))

    resumed = {**TOLD, "event": "resumed", "steps": 2}
    assert said(TOLD, end("ended")) == []
    assert said(TOLD, end("ended"), resumed, end("ended")) == []
    assert said(TOLD) == ["It has not said that it ended: it goes on, or was killed."]
    assert said(TOLD, resumed, end("ended")) == [
        "It ended without a word, and went on after 2 steps."
    ]
    assert said(TOLD, end("failed", error="OSError: full")) == [
        "It failed after 3 steps, then: OSError: full."
    ]
    assert said(TOLD, end("interrupted"), resumed, end("ended")) == [
        "It was interrupted after 3 steps, then, and went on."
    ]


def test_options_are_flat_and_compared_by_name() -> None:
    run = Run("a", history(), [TOLD])
    options = options_of(run)
    assert options == {
        "net": "mlp", "set": "every=1, 2", "optimizer": "fitre", "optimizer class": "FITRE",
        "optimizer every": "1, 2", "model parameters": "10",
    }  # fmt: skip
    other = {**options, "net": "cnn", "seed": "1"}
    assert differing([options, other]) == ["net", "seed"]
    assert differing([options, options]) == []
    assert versions_of(run) == {"torch": "2.13.0", "device": "cpu", "begun": TOLD["time"]}
    resumed = {**TOLD, "event": "resumed", "options": {"net": "cnn"}}
    assert options_of(Run("a", history(), [TOLD, resumed]))["net"] == "cnn"
    assert options_of(Run("a", history(), options={"lr": 0.1})) == {"lr": "0.1"}


def test_numbers_are_shown_in_few_characters() -> None:
    numbers = (math.nan, math.inf, 0.0, 12345.6, 1e-9, 0.98765432)
    assert [*map(shown, numbers)] == ["nan", "inf", "0", "12,346", "1e-09", "0.9877"]
    assert text([1, 2.5, {"a": None}]) == "1, 2.5, a=None"
