"""Histories survive the file system, and pictures show every run."""

import math
from pathlib import Path

import matplotlib as mpl
import pytest

from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.training.history import Epoch, History
from newtriton.runtime.training.plots import plot_histories


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


def test_a_picture_is_saved_and_the_backend_stays(tmp_path: Path):
    backend = mpl.rcParams._get_backend_or_none()
    run().plot(tmp_path / "pictures" / "run.png", against="seconds")
    assert (tmp_path / "pictures" / "run.png").read_bytes().startswith(b"\x89PNG")
    assert mpl.rcParams._get_backend_or_none() == backend


def test_a_comparison_has_a_row_per_measure_and_a_curve_per_run():
    figure = plot_histories({"one": run(), "other": run()}, against=("epochs", "seconds"))
    losses, accuracies, losses_in_time, _ = figure.axes
    assert [text.get_text() for text in accuracies.get_legend().get_texts()] == ["one", "other"]
    assert len(losses.get_lines()) == 4
    assert list(losses.get_lines()[0].get_xdata()) == [1, 2, 3, 4]
    assert list(losses_in_time.get_lines()[0].get_xdata()) == [0.5, 1.0, 1.5, 2.0]


def test_runs_under_one_name_share_a_colour_and_an_entry():
    losses, accuracies = plot_histories({"one": [run(), run()], "other": run()}).axes
    assert [line.get_color() for line in accuracies.get_lines()] == ["C0", "C0", "C1"]
    assert len(accuracies.get_legend().get_texts()) == 2
    assert len(losses.get_legend().get_texts()) == 4


def test_runs_without_validation_or_with_infinite_losses_are_drawn(tmp_path: Path):
    history = run((None, None))
    history.epochs.append(Epoch(3, 6, 1.5, math.nan))
    history.plot(tmp_path / "run.png")
    assert (tmp_path / "run.png").stat().st_size > 0


def test_unknown_measures_and_empty_histories_are_refused():
    with pytest.raises(NewtritonError, match="'steps'"):
        run().plot(against="steps")
    with pytest.raises(NewtritonError, match="no completed epoch"):
        History().plot()
