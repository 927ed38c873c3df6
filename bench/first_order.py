"""Updates and seconds that FITRE, K-FAC and KFRA need, at their defaults, for Adam's training loss.

Adam runs from four learning rates, each constant and halved every quarter of its updates; its best
loss over the whole training set after the last update is the goal. All methods see the same first
weights and batches. Losses are measured every few updates, on the Polyak average where a method
keeps one, and their time does not count. Rows of problems that are not run stay in the file.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import torch

import newtriton as nt

from ..compiler.network import Criterion, Layer
from ..runtime.choices import small_cnn
from ._measure import report

RATES = (0.001, 0.003, 0.01, 0.03)
METHODS: dict[str, Callable[[nt.Model], nt.SecondOrder]] = {
    "FITRE": nt.FITRE,
    "KFAC": nt.KFAC,
    "KFRA": nt.KFRA,
}
Optimizer = nt.SecondOrder | nt.TorchOptimizer


@dataclass(frozen=True)
class Problem:
    """Network, loss and data of a comparison; losses are measured every `every` updates."""

    net: Callable[[], Layer]
    loss: Callable[[], Criterion]
    shape: tuple[int, ...]
    data: Callable[[], nt.Samples]
    batch_size: int
    every: int
    seeds: tuple[int, ...]

    def model(self, seed: int) -> nt.Model:
        """Compiled, with the seed's weights."""
        return nt.compile(self.net(), self.shape, self.loss(), backend="aten", seed=seed)


PROBLEMS = {
    "digits": Problem(
        small_cnn, nt.CrossEntropyLoss, (1, 8, 8), lambda: nt.digits()[0], 128, 2, (0, 1, 2)
    ),
    "curves": Problem(
        nt.models.autoencoder, nt.BCEWithLogitsLoss, (784,), nt.curves, 1000, 5, (0,)
    ),
}


@dataclass(frozen=True)
class Reached:
    """Where a run ended: after how many updates, in how many seconds, at which loss."""

    updates: int
    seconds: float
    loss: float


def whole_loss(model: nt.Model, optimizer: Optimizer, data: nt.Samples) -> float:
    """The training loss of what the method returns: its Polyak average, if it keeps one."""
    batches = nt.Batches(*data, 2000, shuffle=False)
    average = optimizer.average if isinstance(optimizer, nt.SecondOrder) else None
    if average is None:
        return nt.evaluate(model, batches)[0]
    with average.in_place(model):
        return nt.evaluate(model, batches)[0]


def run(
    problem: Problem,
    data: nt.Samples,
    seed: int,
    method: Callable[[nt.Model], Optimizer],
    updates: int,
    goal: float | None = None,
    after: Callable[[Reached], None] | None = None,
) -> Reached:
    """Trains until the goal is reached, or for all updates."""
    model = problem.model(seed)
    optimizer = method(model)
    batches = nt.Batches(*data, problem.batch_size, seed=seed)
    steps = islice(chain.from_iterable(repeat(batches)), updates)
    seconds, reached = 0.0, Reached(0, 0.0, float("inf"))
    for update, (x, y) in enumerate(steps, 1):
        start = time.perf_counter()
        optimizer.step(x, y)
        seconds += time.perf_counter() - start
        if update == updates or (goal is not None and update % problem.every == 0):
            reached = Reached(update, seconds, whole_loss(model, optimizer, data))
            if after is not None:
                after(reached)
            if goal is not None and reached.loss <= goal:
                break
    return reached


class Adam(nt.TorchOptimizer):
    """Adam whose learning rate is halved every `period` updates."""

    def __init__(self, model: nt.Model, lr: float, period: int) -> None:
        super().__init__(model, torch.optim.Adam, lr=lr)
        self.schedule = torch.optim.lr_scheduler.StepLR(self.optimizer, period, 0.5)

    def step(self, x: Any, y: Any = None) -> nt.StepReport:
        """An update, and the schedule's."""
        done = super().step(x, y)
        self.schedule.step()
        return done
