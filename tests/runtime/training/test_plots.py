"""Pictures show every history, and choose no backend."""

import math
from pathlib import Path

import matplotlib as mpl
import pytest

from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.training.epoch import Epoch
from newtriton.runtime.training.history import History
from newtriton.runtime.training.plots import plot_histories

from .test_history import run


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


def test_epochs_are_whole_time_begins_at_zero_and_accuracies_are_percent():
    history = run()
    del history.epochs[1:]
    for histories in (history, run()):
        figure = plot_histories({"": histories}, against=("epochs", "seconds"))
        losses, accuracies, losses_in_time, _ = figure.axes
        for axes in (losses, accuracies):
            low, high = axes.get_xlim()
            ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
            assert ticks and all(tick == round(tick) for tick in ticks)
        assert losses_in_time.get_xlim()[0] == 0.0
        assert accuracies.yaxis.get_major_formatter()(0.5).endswith("%")


def test_runs_under_one_name_share_a_colour_and_an_entry():
    losses, accuracies = plot_histories({"one": [run(), run()], "other": run()}).axes
    assert [line.get_color() for line in accuracies.get_lines()] == ["C0", "C0", "C1"]
    assert len(accuracies.get_legend().get_texts()) == 2
    assert len(losses.get_legend().get_texts()) == 4


def test_runs_without_validation_or_with_infinite_losses_are_drawn(tmp_path: Path):
    history = run((None, None))
    history.epochs.append(Epoch(3, 6, 1.5, math.nan))
    figure = history.plot(tmp_path / "run.png")
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss"]
    assert (tmp_path / "run.png").stat().st_size > 0


def test_unknown_measures_and_empty_histories_are_refused():
    with pytest.raises(NewtritonError, match="'steps'"):
        run().plot(against="steps")
    with pytest.raises(NewtritonError, match="no completed epoch"):
        History().plot()
