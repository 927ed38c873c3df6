"""Charts show what was recorded: runs in their colours, refusals and what is not finite marked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from newtriton.runtime.charting import colours
from newtriton.runtime.reporting.charts import COLUMNS, draw, is_spread
from newtriton.runtime.reporting.quantities import ACCURACY, KNOWN, LOSS, Quantity, recorded
from newtriton.runtime.reporting.reading import Run
from newtriton.runtime.training.history import History

from .records import diverged, history


def drawn(
    histories: Sequence[History], quantity: Quantity, against: str = "steps"
) -> tuple[Axes, bool]:
    axes = Figure().subplots()
    runs = [Run(str(n), one) for n, one in enumerate(histories)]
    return axes, draw(axes, runs, quantity, against)


def points(axes: Axes, marker: str) -> list[tuple[float, float]]:
    lines = [line for line in axes.get_lines() if line.get_marker() == marker]
    return [(float(x), float(y)) for line in lines for x, y in zip(*line.get_data(), strict=True)]


def test_refused_steps_are_crosses_where_they_are() -> None:
    run = history()
    axes, marked = drawn([run], KNOWN["damping"])
    assert points(axes, "x") == [(s["step"], s["damping"]) for s in run.steps if not s["accepted"]]
    assert not marked


def test_what_is_not_finite_is_a_triangle_at_the_edge() -> None:
    axes, marked = drawn([diverged()], LOSS)
    assert marked
    assert [x for x, _ in points(axes, "^")] == [7, 8, 12, 12], "a step and an epoch"
    assert {y for _, y in points(axes, "^")} == {0.97}


def test_what_lies_outside_of_the_window_is_marked_too() -> None:
    run = history()
    run.steps[2]["rho"], run.steps[4]["rho"] = -1e6, 1e6
    axes, marked = drawn([run], KNOWN["rho"])
    low, high = axes.get_ylim()
    assert marked and -1.5 < low <= -1 and 3 <= high < 3.5
    assert [x for x, _ in points(axes, "^")] == [5]
    assert [x for x, _ in points(axes, "v")] == [3]
    axes, marked = drawn([history()], KNOWN["rho"])
    assert not marked, "where all lies inside, the axis is that of the values"


def test_zeros_on_a_logarithmic_axis_are_marked() -> None:
    run = history()
    run.steps[3]["step_norm"] = 0.0
    axes, marked = drawn([run], KNOWN["step-norm"])
    assert axes.get_yscale() == "log" and marked
    assert [x for x, _ in points(axes, "v")] == [4]


def test_runs_have_their_colours_and_styles() -> None:
    count = len(colours.SERIES) + 1
    axes, _ = drawn([history()] * count, ACCURACY)
    lines = [line for line in axes.get_lines() if line.get_marker() == "o"]
    found = [(line.get_color(), line.get_linestyle()) for line in lines]
    assert len(found) == len(set(found)) == count
    assert found[0][0] == found[-1][0]


def test_spikes_of_long_runs_stay() -> None:
    run = history(9_000, 900)
    run.steps[5_555]["damping"] = 77.0
    axes, _ = drawn([run], KNOWN["damping"])
    (line, *_) = [line for line in axes.get_lines() if len(line.get_xdata())]
    assert line.get_linestyle() == "-"
    assert len(line.get_xdata()) <= 4 * COLUMNS
    assert np.max(line.get_ydata()) == 77.0


@pytest.mark.parametrize("against", ["epochs", "steps", "seconds"])
def test_constant_and_single_values_have_room(against: str) -> None:
    run = history(4)
    for step in run.steps:
        step["lr"] = 0.01
    axes, _ = drawn([run], KNOWN["lr"], against)
    assert axes.get_ylim() == pytest.approx((0.005, 0.015))
    axes, _ = drawn([History(steps=run.steps[:1])], LOSS, against)
    assert axes.get_ylim()[0] < run.steps[0]["loss"] < axes.get_ylim()[1]


@pytest.mark.parametrize("epochs", [1, 2, 30])
def test_epochs_and_updates_have_whole_ticks_and_time_begins_at_zero(epochs: int) -> None:
    for against in ("epochs", "steps", "seconds"):
        axes, _ = drawn([history(4 * epochs, 4)], ACCURACY, against)
        low, high = axes.get_xlim()
        ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
        assert ticks
        assert against == "seconds" or all(tick == round(tick) for tick in ticks)
        assert against == "epochs" or low == 0.0
        format_ = axes.yaxis.get_major_formatter()
        assert format_(0.975) == "97.5 %"


def test_the_mean_of_one_epoch_is_seen() -> None:
    axes, _ = drawn([history(4, 4)], LOSS, "epochs")
    assert len(points(axes, "_")) == 1
    axes, _ = drawn([history(8, 4)], LOSS, "epochs")
    assert not points(axes, "_")


def test_what_is_recorded_is_known() -> None:
    assert [*recorded([Run("a", history())])] == [
        *("loss", "accuracy", "rho", "radius", "damping", "gain", "step-norm", "predicted"),
    ]
    more = recorded([Run("a", history(heat=1.0, label="x", flag=True, cg_iterations=2))])
    assert {"heat", "cg-iterations"} <= more.keys() and not {"label", "flag"} & more.keys()


def test_values_are_spread_that_are_positive_and_far_apart() -> None:
    assert is_spread(np.array([1.0, 100.0])) and not is_spread(np.array([1.0, 2.0]))
    assert not is_spread(np.array([-1.0, 100.0])) and not is_spread(np.array([]))
