"""Histories survive the file system and answer questions."""

import math
from itertools import pairwise
from pathlib import Path

import pytest

from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.training.epoch import Epoch
from newtriton.runtime.training.history import MOST, RECENT, History


def run(accuracies: tuple[float | None, ...] = (0.9, 0.97, 0.96, 0.98)) -> History:
    epochs = [
        Epoch(n, 2 * n, 0.5 * n, 1 / n, None if accuracy is None else 2 / n, accuracy)
        for n, accuracy in enumerate(accuracies, 1)
    ]
    steps = [{"step": n, "epoch": 1, "seconds": 0.1 * n, "loss": 1.0} for n in (1, 2)]
    return History(epochs, steps)


def test_a_saved_history_loads_as_it_was(tmp_path: Path):
    history = run()
    history.steps[0]["loss"] = math.inf
    history.save(tmp_path / "deep" / "history.json")
    assert History.load(tmp_path / "deep" / "history.json") == history


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"epochs": [{"number": 1}]}'])
def test_another_file_is_refused_by_name(tmp_path: Path, text: str):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(NewtritonError, match=r"other\.json"):
        History.load(path)


def test_epochs_to_an_accuracy():
    assert run().epochs_to(0.97) == 2
    assert run().epochs_to(0.99) is None
    assert run((None, None)).epochs_to(0.1) is None


def test_seconds_are_those_of_the_last_step():
    assert run().seconds == 0.2
    assert History().seconds == 0


def test_refused_steps_are_counted_by_epoch():
    steps = [(1, True), (1, False), (2, True), (3, False), (3, False)]
    history = History([], [{"epoch": epoch, "accepted": taken} for epoch, taken in steps])
    assert [history.refused(epoch) for epoch in (1, 2, 3, 4)] == [1, 0, 2, 0]


def recorded(count: int, history: History | None = None) -> History:
    history = History() if history is None else history
    for step in range(history.count + 1, count + 1):
        history.record({"step": step, "epoch": 1, "seconds": 0.1 * step, "loss": 1.0 / step})
    return history


@pytest.mark.parametrize("count", [9_999, 10_000, 10_001, 20_000, 100_000])
def test_many_steps_are_thinned_out_and_the_last_ones_kept(count: int):
    history = recorded(count)
    steps = [step["step"] for step in history.steps]
    assert len(steps) <= MOST
    assert steps[-RECENT:] == list(range(count - RECENT + 1, count + 1))
    early = [step for step in steps if step <= count - MOST]
    assert not early or len({b - a for a, b in pairwise(early)}) == 1
    assert history.count == count
    assert history.seconds == pytest.approx(0.1 * count)


def test_a_history_that_goes_on_from_a_file_is_what_it_would_have_been():
    for stop in (9_000, 12_345, 23_456):
        assert recorded(30_000, History.parsed(recorded(stop).text())) == recorded(30_000)


def test_a_history_of_a_million_steps_takes_a_few_megabytes_of_a_file():
    history = History()
    history.steps = [{"step": 900_000 + 100 * n, "epoch": 1, "seconds": 1.0} for n in range(1000)]
    recorded(1_010_000, history)
    assert len(history.steps) <= MOST
    assert len(history.text()) < 1 << 20
