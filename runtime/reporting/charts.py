"""Charts of quantities, drawn with Matplotlib; no window opens and no backend is chosen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..charting import colours
from ..charting.axes import finish
from .curves import Curve, Curves, curves_of, thinned
from .quantities import AXIS, Quantity
from .reading import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 240  # of pixels, in which a curve has four points at most
MARKED = 24  # columns in which four refused steps are marked at most
MOSTLY = 0.6  # the share of values that are positive for a logarithmic axis
SPREAD = 8.0  # how far apart values are for a logarithmic axis


def draw(axes: Axes, runs: Sequence[Run], quantity: Quantity, against: str) -> bool:
    """Draws a quantity of several runs.

    What steps recorded is a thin line, what epochs did a thick one with points. A cross marks a
    step that was refused, a triangle at the edge what is not finite or lies outside of the chart.

    Args:
        axes: where it is drawn.
        runs: the runs, each in its colour.
        quantity: the quantity.
        against: "epochs", "steps" or "seconds".

    Returns:
        whether there is a triangle.
    """
    found = [curves_of(run.history, quantity, against) for run in runs]
    values = np.concatenate([c.finite.y for f in found for c in (f.steps, f.epochs, f.means)])
    is_log = quantity.log and is_spread(values)
    if is_log:
        axes.set_yscale("log")
    low, high = _window(quantity, values)
    if is_log:
        low = np.finfo(float).tiny
    for mark in quantity.marks:
        axes.axhline(mark, color=colours.MUTED, linewidth=0.8, zorder=1)
    alone = len(runs) == 1
    marked = [_draw_run(axes, curves, i, alone, low, high) for i, curves in enumerate(found)]
    if len(values) and values.min() == values.max():
        middle, room = values[0], 0.5 * abs(values[0]) or 1.0
        axes.set_ylim(middle - room, middle + room)
    elif not is_log and (math.isfinite(low) or math.isfinite(high)):
        room = 0.06 * (min(high, values.max()) - max(low, values.min()))
        axes.set_ylim(
            low - room if math.isfinite(low) else None, high + room if math.isfinite(high) else None
        )
    finish(axes, AXIS[against], is_log, percent=quantity.percent, whole=against != "seconds")
    if against != "epochs":
        axes.set_xlim(left=0.0)
    return any(marked)


def is_spread(values: Any) -> bool:
    """Whether values are positive, nearly all, and so far apart that a logarithmic axis helps."""
    positive = values[values > 0.0]
    mostly = len(positive) >= MOSTLY * len(values) > 0
    return bool(mostly and positive.max() > SPREAD * positive.min())


def _window(quantity: Quantity, values: Any) -> tuple[float, float]:
    """Returns the values between which a quantity is shown, infinite where all are."""
    if quantity.window is None or not len(values):
        return -math.inf, math.inf
    low, high = quantity.window
    return (
        low if values.min() < low else -math.inf,
        high if values.max() > high else math.inf,
    )


def _draw_run(axes: Axes, curves: Curves, index: int, alone: bool, low: float, high: float) -> bool:
    """Draws what a run has recorded, marks what went wrong; returns whether there is a triangle."""
    color, style = colours.series(index), colours.style(index)
    wrong = colours.BAD if alone else color
    faint = bool(len(curves.epochs.finite.x))
    steps = thinned(curves.steps.finite, COLUMNS)
    axes.plot(
        steps.x, steps.y, color=color, linestyle=style, linewidth=0.9 if faint else 1.2,
        alpha=0.5 if faint else 1.0, zorder=2,
    )  # fmt: skip
    means = thinned(curves.means.finite, COLUMNS)
    axes.plot(
        means.x, means.y, color=color, linestyle=(0, (4, 2)), linewidth=1.2, zorder=3,
        marker="_" if len(means.x) == 1 else None,  # a line of one point is not seen
    )  # fmt: skip
    epochs = thinned(curves.epochs.finite, COLUMNS)
    points = "o" if len(epochs.x) <= 60 else None
    axes.plot(
        epochs.x, epochs.y, color=color, linestyle=style, linewidth=1.7, marker=points,
        markersize=3.2, zorder=4,
    )  # fmt: skip
    refused = thinned(curves.refused.finite, MARKED)
    inside = (refused.y >= low) & (refused.y <= high)
    axes.plot(
        refused.x[inside], refused.y[inside], "x", color=wrong, markersize=4.5,
        markeredgewidth=1.1, zorder=5,
    )  # fmt: skip
    everything = [curve.finite for curve in (curves.steps, curves.means, curves.epochs)]
    above = [curve.x[curve.y > high] for curve in everything]
    below = np.concatenate([curve.x[curve.y < low] for curve in everything])
    above = np.concatenate([curves.unbounded, *above])
    _at_edge(axes, above, 0.97, "^", wrong)
    _at_edge(axes, below, 0.03, "v", wrong)
    return bool(len(above) + len(below))


def _at_edge(axes: Axes, x: Any, height: float, marker: str, color: str) -> None:
    """Marks places at the upper or lower edge."""
    if not len(x):
        return
    places = thinned(Curve(x, np.zeros(len(x))), MARKED).x
    axes.plot(
        places, np.full(len(places), height), marker, color=color, markersize=3.6,
        transform=axes.get_xaxis_transform(), zorder=6, clip_on=False,
    )  # fmt: skip
