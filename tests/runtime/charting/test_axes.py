"""Axes have few ticks, and short numbers."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from newtriton.runtime.charting.axes import finish, number


def test_numbers_of_axes_are_short() -> None:
    assert [*map(number, (0.0, -0.5, 1e-5, 2.5e-7, -1e6, 12000.0))] == [
        *("0", "−0.5", "10⁻⁵", "2.5·10⁻⁷", "−10⁶", "12000"),
    ]


@pytest.mark.parametrize("last", [1, 2, 3, 7, 250])
def test_whole_numbers_have_whole_ticks(last: int) -> None:
    axes = Figure().subplots()
    axes.plot([1, last], [0.1, 0.9])
    finish(axes, "epoch", whole=True)
    low, high = axes.get_xlim()
    ticks = [float(tick) for tick in axes.get_xticks() if low <= tick <= high]
    assert 1 <= len(ticks) <= 7
    assert all(tick.is_integer() for tick in ticks)


def test_a_logarithmic_axis_has_powers_of_ten() -> None:
    axes = Figure().subplots()
    axes.semilogy([0.0, 1.0], [1e-9, 1.0])
    finish(axes, "eigenvalue", is_log=True)
    format_ = axes.yaxis.get_major_formatter()
    assert format_(1e-6) == "10⁻⁶"
    assert axes.get_xlabel() == "eigenvalue"
