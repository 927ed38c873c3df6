"""Curves stand where the records do, and thinned ones look the same."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newtriton.runtime.reporting.curves import Curve, curves_of, thinned
from newtriton.runtime.reporting.quantities import ACCURACY, KNOWN, LOSS
from newtriton.runtime.training.history import History

from .records import diverged, history


@pytest.mark.parametrize("against", ["epochs", "steps", "seconds"])
def test_curves_stand_where_the_records_do(against: str) -> None:
    run = history(14)
    at_epochs = [getattr(e, {"epochs": "number"}.get(against, against)) for e in run.epochs]
    found = curves_of(run, LOSS, against)
    assert [*found.epochs.x] == at_epochs
    assert [*found.epochs.y] == [epoch.validation_loss for epoch in run.epochs]
    rho = curves_of(run, KNOWN["rho"], against)
    assert [*rho.steps.y] == [step["rho"] for step in run.steps]
    if against == "epochs":  # a quarter of an epoch a step, after the last complete one too
        assert [*rho.steps.x] == pytest.approx([n / 4 for n in range(1, 15)])
        assert [*found.means.y] == [epoch.loss for epoch in run.epochs]
        assert not len(found.steps.x)
    else:
        name = {"steps": "step"}.get(against, against)
        assert [*found.steps.x] == [step[name] for step in run.steps]
        assert [*found.refused.x] == [s[name] for s in run.steps if not s["accepted"]]
    assert [*curves_of(run, ACCURACY, against).epochs.y] == [
        epoch.validation_accuracy for epoch in run.epochs
    ]


def test_a_run_without_a_complete_epoch_has_curves_of_its_steps() -> None:
    run = History(steps=history(3).steps)
    assert [*curves_of(run, KNOWN["damping"], "epochs").steps.x] == pytest.approx([1 / 3, 2 / 3, 1])
    assert len(curves_of(run, LOSS, "steps").steps.x) == 3


def test_what_is_not_finite_is_not_dropped() -> None:
    found = curves_of(diverged(), LOSS, "steps")
    assert [*found.unbounded] == [7, 8, 12, 12]
    assert len(found.steps.finite.x) == 12 - 3
    assert [*curves_of(diverged(), LOSS, "epochs").unbounded] == [7 / 4, 2, 3, 3]


@settings(max_examples=50, derandomize=True, deadline=None)
@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=400),
    st.integers(1, 40),
    st.floats(0.0, 1e6),
)
def test_thinned_curves_keep_the_extremes_of_every_column(
    values: list[float], columns: int, width: float
) -> None:
    y = np.array(values)
    x = np.linspace(0.0, width, len(y))
    few = thinned(Curve(x, y), columns)
    assert len(few.x) <= max(4 * columns, 0)
    assert (few.y.min(), few.y.max()) == (y.min(), y.max())
    assert (few.x[0], few.x[-1]) == (x[0], x[-1])
    assert (np.diff(few.x) >= 0).all()
    edges = np.linspace(x[0], x[-1], columns + 1)
    for low, high in pairwise(edges):
        inside = (x > low) & (x < high)  # the edges themselves may be rounded either way
        if inside.sum() > 2:
            kept = few.y[(few.x >= low) & (few.x <= high)]
            assert kept.min() <= y[inside].min() and kept.max() >= y[inside].max()
