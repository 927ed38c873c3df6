"""Histories that reports are made of, written by hand and from a seed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from newtriton.runtime.training.epoch import Epoch
from newtriton.runtime.training.history import History


def history(steps: int = 12, per_epoch: int = 4, seed: int = 0, **more: Any) -> History:
    """A run with losses that fall, some steps refused, and a report's fields."""
    draw, made = np.random.default_rng(seed), History()
    for n in range(1, steps + 1):
        loss = float(2.0 / n + 0.1 * draw.random())
        accepted = n % 5 != 0
        made.record(
            {
                "step": n, "epoch": (n - 1) // per_epoch + 1, "seconds": 0.25 * n, "loss": loss,
                "new_loss": loss, "accepted": accepted, "step_norm": 1.0 / n,
                "status": "solved" if accepted else
                f"the step was refused: it takes the loss from {loss} to 9, where its model "
                "promises 0",
                "rho": 1.0 - 1.0 / n, "predicted": 0.5 / n, "radius": 0.5 ** (n % 7),
                "damping": 0.1 / n, "lr": None, "gain": 1.0 - 0.5 / n, "damping_retries": 0,
                "cg_iterations": 0, "halvings": 0, "rejected": 0, **more,
            }
        )  # fmt: skip
        if n % per_epoch == 0:
            made.epochs.append(
                Epoch(n // per_epoch, n, 0.25 * n, loss, loss + 0.123456789, 1.0 - 1.0 / (n + 3))
            )
    return made


def diverged() -> History:
    """A run whose losses become infinite, and then no numbers."""
    made = history()
    for n, loss in ((6, math.inf), (7, math.nan), (11, -math.inf)):
        made.steps[n]["loss"] = loss
    made.epochs[-1] = Epoch(3, 12, 3.0, math.nan, math.inf, 0.1)
    return made
