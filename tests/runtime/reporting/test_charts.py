"""Charts show what was recorded: runs in their colours, refusals and what is not finite marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from newtriton.runtime.diagnostics.densities import Density
from newtriton.runtime.reporting import colours
from newtriton.runtime.reporting.charts import COLUMNS, draw, draw_spectra, is_spread, number
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


def test_what_is_recorded_is_known() -> None:
    assert [*recorded([Run("a", history())])] == [
        *("loss", "accuracy", "rho", "radius", "damping", "gain", "step-norm", "predicted"),
    ]
    more = recorded([Run("a", history(heat=1.0, label="x", flag=True, cg_iterations=2))])
    assert {"heat", "cg-iterations"} <= more.keys() and not {"label", "flag"} & more.keys()


def test_a_spectrum_is_its_density() -> None:
    nodes, weights = torch.tensor([[0.0, 10.0]]).double(), torch.tensor([[0.9, 0.1]]).double()
    found = Density(nodes, weights, 0.1, 2, True)
    runs = [Run("a", history(), spectrum=found), Run("b", history())]
    axes = Figure().subplots()
    draw_spectra(axes, runs, "hessian")
    (line,) = axes.get_lines()
    x = torch.as_tensor(line.get_xdata())
    assert np.array_equal(line.get_ydata(), found(x)[0].numpy())
    other = Run("c", history(), spectrum=replace(found, matrix="ggn"))
    axes = Figure().subplots()
    draw_spectra(axes, [*runs, other], "ggn")
    assert [line.get_color() for line in axes.get_lines()] == [colours.series(2)]


def test_numbers_of_axes_are_short() -> None:
    assert [*map(number, (0.0, -0.5, 1e-5, 2.5e-7, -1e6, 12000.0))] == [
        *("0", "−0.5", "10⁻⁵", "2.5·10⁻⁷", "−10⁶", "12000"),
    ]
    assert is_spread(np.array([1.0, 100.0])) and not is_spread(np.array([1.0, 2.0]))
    assert not is_spread(np.array([-1.0, 100.0])) and not is_spread(np.array([]))
