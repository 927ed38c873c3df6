"""Training runs as rows: losses and accuracy by epoch, update and second."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from itertools import chain, repeat
from math import isfinite
from typing import Any

import numpy as np

import newtriton as nt

from .experiment import Row

LARGE = 1e6  # a training loss of this many times its first one counts as diverged


def curve(
    model: nt.Model,
    optimizer: Any,
    batches: Iterable[Any],
    train: Iterable[Any],
    test: Iterable[Any],
    epochs: int,
    stop: Callable[[Row], bool] = lambda row: False,
) -> Row:
    """Trains a model and returns its curve as lists, one entry per epoch, the first before it.

    `seconds` are those of training alone, `refused` counts the updates that were not taken. A run
    that diverges, or whose optimizer gives up, ends with a `fault`.

    Args:
        model: the model, which is changed.
        optimizer: what trains it.
        batches: what is trained on.
        train: the data whose loss is `loss`.
        test: the data of `test_loss` and `accuracy`.
        epochs: how many passes are made at most.
        stop: looks at the row after each epoch; True ends the run.
    """
    history = nt.History()
    fields = ("epoch", "update", "refused", "seconds", "loss", "test_loss", "accuracy")
    row: Row = {field: [] for field in fields}
    for epoch in range(epochs + 1):
        loss, _ = nt.evaluate(model, train)
        test_loss, accuracy = nt.evaluate(model, test)
        refused = history.refused(epoch) + (row["refused"][-1] if epoch else 0)
        steps = (epoch, history.count, refused, history.seconds)
        for field, value in zip(fields, (*steps, loss, test_loss, accuracy), strict=True):
            row[field].append(value)
        if not isfinite(loss) or loss > LARGE * row["loss"][0]:
            return row | {"fault": "diverged"}
        if epoch == epochs or stop(row):
            return row
        try:
            nt.fit(model, optimizer, batches, epochs=1, progress=False, history=history)
        except nt.NewtritonError as error:
            return row | {"fault": str(error)[:200]}
    return row


def curve_by_update(
    model: nt.Model,
    optimizer: Any,
    batches: Iterable[Any],
    train: Iterable[Any],
    marks: Collection[int],
) -> Row:
    """Trains a model and returns its curve as lists, an entry for each mark.

    `refused` is how many steps were not made. A run that diverges, or whose optimizer gives up,
    ends with a `fault`.

    Args:
        model: the model, which is changed.
        optimizer: what trains it.
        batches: what is trained on, over and over.
        train: the data whose loss is `loss`.
        marks: the numbers of updates after which the loss is measured.
    """
    row: Row = {"update": [], "seconds": [], "loss": [], "refused": 0}
    lists = (row["update"], row["seconds"], row["loss"])
    seconds, stream = 0.0, chain.from_iterable(repeat(batches))
    for update in range(max(marks) + 1):
        if update in marks:
            loss, _ = nt.evaluate(model, train)
            for values, value in zip(lists, (update, seconds, loss), strict=True):
                values.append(value)
            if not isfinite(loss) or loss > LARGE * row["loss"][0]:
                return row | {"fault": "diverged"}
        if update == max(marks):
            break
        x, y = next(stream)
        start = time.perf_counter()
        try:
            row["refused"] += not optimizer.step(x.to(model.device), y.to(model.device)).accepted
        except nt.NewtritonError as error:
            return row | {"fault": str(error)[:200]}
        seconds += time.perf_counter() - start
    return row


def marks(updates: int, number: int = 40) -> list[int]:
    """Returns 0 and numbers of updates up to a last one, at about equal ratios."""
    return [0, *np.unique(np.geomspace(1, updates, min(number, updates)).round().astype(int))]


def least(row: Row, of: str = "loss") -> float:
    """Returns the lowest value of a curve that is finite, infinite if none is."""
    return min((v for v in row[of] if v is not None and isfinite(v)), default=float("inf"))


def most(row: Row, of: str = "accuracy") -> float:
    """Returns the highest value of a curve, 0 if there is none."""
    return max((v for v in row[of] if v is not None), default=0.0)


def first_below(row: Row, level: float, of: str = "loss", at: str = "update") -> float | None:
    """Returns where a curve first comes down to a level, None if it does not."""
    pairs = zip(row[of], row[at], strict=True)
    return next((t for v, t in pairs if v is not None and v <= level), None)
