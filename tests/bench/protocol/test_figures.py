"""Pictures of rows show their numbers."""

from __future__ import annotations

import numpy as np

from newtriton.bench.protocol.figures import curves, grid, one_legend, panels


def test_a_curve_is_the_median_of_the_seeds_with_their_range() -> None:
    figure, axes = panels(1, 2)
    rows = [
        {"method": method, "epoch": [0, 1, 2], "loss": [3.0, value, None][: 3 - (value == 9.0)]}
        for method, values in {"A": (1.0, 2.0, 9.0), "B": (4.0,)}.items()
        for value in values
    ]
    curves(axes[0, 0], rows, "epoch", "loss")
    first, second = axes[0, 0].lines
    assert first.get_ydata().tolist() == [3.0, 2.0]
    assert second.get_ydata()[:2].tolist() == [3.0, 4.0]
    assert [text.get_text() for text in axes[0, 0].get_legend().get_texts()] == ["A", "B"]
    one_legend(axes[0, :1])
    figure.draw_without_rendering()


def test_a_grid_has_its_numbers_and_leaves_out_what_is_none() -> None:
    figure, axes = panels(1, 1)
    values = np.array([[1.0, np.nan, 3.0]])
    grid(axes[0, 0], values, ["row"], ["a", "b", "c"], "{:.1f}", limits=(0.0, 4.0))
    assert [text.get_text() for text in axes[0, 0].texts] == ["1.0", "3.0"]
    assert [label.get_text() for label in axes[0, 0].get_xticklabels()] == ["a", "b", "c"]
    figure.draw_without_rendering()


def test_what_is_nowhere_positive_has_no_logarithm() -> None:
    figure, axes = panels(1, 1)
    curves(axes[0, 0], [{"method": "A", "batch": [1, 2], "rank": [0, 0]}], "batch", "rank")
    assert axes[0, 0].get_yscale() == "linear"
    figure.draw_without_rendering()
