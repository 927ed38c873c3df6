"""Records as curves over epochs, updates or seconds, and as fewer points with the same look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..training.history import History
from .quantities import Quantity

Numbers = NDArray[np.float64]


class Curve(NamedTuple):
    """Values over an axis; NaN where there is none.

    Attributes:
        x: where they are.
        y: what they are.
    """

    x: Numbers
    y: Numbers

    @property
    def finite(self) -> Curve:
        """The finite values alone."""
        known = np.isfinite(self.y) & np.isfinite(self.x)
        return Curve(self.x[known], self.y[known])


class Curves(NamedTuple):
    """What a chart shows of a run.

    Attributes:
        steps: a value for each recorded step.
        epochs: a value for each epoch.
        means: the epochs' means of what steps recorded, which stand for the steps on that axis.
        refused: the steps that were not accepted, at the values of `steps`.
        unbounded: where a step or an epoch recorded NaN or an infinity.
    """

    steps: Curve
    epochs: Curve
    means: Curve
    refused: Curve
    unbounded: Numbers


def curves_of(history: History, quantity: Quantity, against: str) -> Curves:
    """Returns what a run has recorded of a quantity.

    Args:
        history: its records.
        quantity: the quantity.
        against: "epochs", "steps" or "seconds".
    """
    at_steps, at_epochs = _places(history, against)
    recorded = [step.get(quantity.step or "") for step in history.steps]
    of_steps = _values(recorded)
    values = [getattr(epoch, quantity.epoch or "", None) for epoch in history.epochs]
    means = [getattr(epoch, quantity.mean or "", None) for epoch in history.epochs]
    averaged = against == "epochs" and quantity.mean is not None and bool(history.epochs)
    refused = np.array([step.get("accepted") is False for step in history.steps], bool)
    unbounded = [
        at[[_is_unbounded(value) for value in found]]
        for at, found in ((at_steps, recorded), (at_epochs, values))
    ]
    return Curves(
        _none() if averaged else Curve(at_steps, of_steps),
        Curve(at_epochs, _values(values)),
        Curve(at_epochs, _values(means)) if averaged else _none(),
        _none() if averaged else Curve(at_steps[refused], of_steps[refused]),
        np.concatenate(unbounded),
    )


def thinned(curve: Curve, columns: int) -> Curve:
    """Returns a curve of at most four points for each column of pixels, which looks the same.

    Those are the first and the last point, the lowest and the highest: no spike is lost.

    Examples:
        >>> import numpy as np
        >>> from newtriton.runtime.reporting.curves import Curve, thinned
        >>> y = np.zeros(10_000)
        >>> y[1234] = 7.0
        >>> few = thinned(Curve(np.arange(10_000.0), y), 100)
        >>> len(few.x) <= 400, float(few.y.max()), float(few.x[few.y.argmax()])
        (True, 7.0, 1234.0)
    """
    if len(curve.x) <= 4 * columns:
        return curve
    order = np.argsort(curve.x, kind="stable")
    x, y = curve.x[order], curve.y[order]
    width = (x[-1] - x[0]) / columns or 1.0
    column = np.minimum(((x - x[0]) / width).astype(np.int64), columns - 1)
    starts = np.flatnonzero(np.diff(column, prepend=-1))
    ends = np.append(starts[1:], len(x))
    by_value = np.lexsort((y, column))  # within each column by value, from its start to its end
    kept = np.unique(np.concatenate([starts, ends - 1, by_value[starts], by_value[ends - 1]]))
    return Curve(x[kept], y[kept])


def _places(history: History, against: str) -> tuple[Numbers, Numbers]:
    """Returns where steps and epochs stand on an axis."""
    steps = np.array([step["step"] for step in history.steps], np.float64)
    numbers = np.array([epoch.number for epoch in history.epochs], np.float64)
    if against == "steps":
        return steps, np.array([epoch.steps for epoch in history.epochs], np.float64)
    if against == "seconds":
        seconds = np.array([step["seconds"] for step in history.steps], np.float64)
        return seconds, np.array([epoch.seconds for epoch in history.epochs], np.float64)
    if not len(numbers):
        return steps / max(steps[-1:].sum(), 1.0), numbers
    ends = np.array([0, *(epoch.steps for epoch in history.epochs)], np.float64)
    numbers = np.array([0, *numbers], np.float64)
    inside = np.interp(steps, ends, numbers)
    beyond = np.maximum(steps - ends[-1], 0.0) * (numbers[-1] / max(ends[-1], 1.0))
    return inside + beyond, numbers[1:]


def _values(values: Sequence[object]) -> Numbers:
    """Returns values as numbers, NaN where there is none or one that is not finite."""
    found = np.array([np.nan if v is None else v for v in map(_number, values)], np.float64)
    found[~np.isfinite(found)] = np.nan
    return found


def _number(value: object) -> float | None:
    """Returns a number as a float, None for what is none."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:
        return np.inf


def _is_unbounded(value: object) -> bool:
    """Whether a value is a number that is not finite."""
    number = _number(value)
    return number is not None and not np.isfinite(number)


def _none() -> Curve:
    return Curve(np.empty(0), np.empty(0))
