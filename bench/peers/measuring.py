"""Rows of an operation: all sides compared on what they compute, then timed in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch

from .._measure import Elapsed, interleaved
from .problem import Call, Named, Problem, relative_error
from .sides import clause

Row: TypeAlias = dict[str, Any]
# How far numbers of one operation may lie apart, of their norm, in float32: eigenvectors of close
# eigenvalues, which EKFAC's second moments are taken in, are not determined better.
AGREE = {"ekfac": 1e-3}
AGREE_ELSE = 1e-4
KINKS = 1e-2  # where an input of a ReLU is on the other side of 0 after another rounding
MOVED = "rounding moves inputs of ReLUs across 0, where derivatives jump"
FORMS = "form", "forms"
OTHERS = "its numbers are others"
LEAST = 5  # rounds, without which there are no quantiles
CYCLE = 20  # steps between two inversions of our K-FAC, a multiple of the others'


@dataclass(frozen=True)
class Effort:
    """How long is measured.

    Attributes:
        rounds: the most runs of each call.
        seconds: what the rounds of one operation may take, all sides together.
        steps: the runs of an optimizer's step, which is not always the same work.
    """

    rounds: int = 21
    seconds: float = 10.0
    steps: int = CYCLE


@dataclass(frozen=True)
class Place:
    """Where in the table a row stands: a network, and what of it varies.

    Attributes:
        kernel_name: the network's name.
        x_name: what varies.
        x_value: its value.
    """

    kernel_name: str
    x_name: str
    x_value: int

    def row(self, operation: str, provider: str, metric: str, unit: str) -> Row:
        """Returns the first columns of a row, named as Liger-Kernel's are."""
        return {
            "kernel_name": self.kernel_name, "kernel_operation": operation, "provider": provider,
            "metric_name": metric, "metric_unit": unit,
            "x_name": self.x_name, "x_value": self.x_value,
        }  # fmt: skip

    def refused(self, operation: str, provider: str, why: str) -> Row:
        """Returns the row of a side that does not do an operation here."""
        return {**self.row(operation, provider, "speed", "ms"), "refused": why}


def quantiles(seconds: Sequence[float]) -> Row:
    """Returns the quantiles 20, 50 and 80 in milliseconds, and how many runs there were."""
    low, middle, high = (round(1e3 * q, 4) for q in np.quantile(seconds, (0.2, 0.5, 0.8)))
    return {"y_value_20": low, "y_value_50": middle, "y_value_80": high, "rounds": len(seconds)}


def seconds_of(call: Callable[[], Any], device: torch.device) -> float:
    """Returns how long a call took."""
    start = time.perf_counter()
    found = call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return float(found) if isinstance(found, Elapsed) else time.perf_counter() - start


def speed(
    problem: Problem,
    place: Place,
    calls: Sequence[Call],
    unit: Call,
    effort: Effort,
    wrong: Collection[str] = (),
) -> Iterator[Row]:
    """Yields the rows of one operation's calls.

    The first call whose numbers are found is what the others are compared with. A call that fails,
    or that computes something else without saying so, is not timed.

    Args:
        problem: what the calls are about.
        place: where their rows stand.
        calls: one operation's, ours first.
        unit: what times are told in, the gradient by PyTorch's autograd; it takes turns with them.
        effort: how long is measured.
        wrong: providers whose H v is another: their forms are made of it, and may agree by chance.
    """
    kept, refused = list[tuple[Call, Row]](), list[Row]()
    reference, device = None, problem.x.device
    each = seconds_of(unit.run, device)
    for call in calls:
        try:
            row = place.row(call.operation, call.provider, "speed", "ms")
            started = time.perf_counter()
            call.run()
            first = time.perf_counter() - started
            found = {name: t.detach().clone() for name, t in call.numbers().items()}
            seconds = seconds_of(call.run, device)
        except Exception as error:  # whatever a library says of a network
            refused.append(place.refused(call.operation, call.provider, clause(error)))
            continue
        told, agrees = _agreement(call, found, reference)
        agrees = agrees and not (call.operation in FORMS and call.provider in wrong)
        reference = found if reference is None else reference
        if not agrees:
            why = f"{OTHERS}: {told['error']:.1e} of their norm lies between"
            row = place.refused(call.operation, call.provider, why)
            refused.append({**row, "disagrees": True})
            continue
        kept.append((call, {**row, "first_s": round(first, 3), **told}))
        each += seconds
    if kept:
        yield from _timed(kept, each, unit, effort, device)
    yield from refused


def _timed(
    kept: Sequence[tuple[Call, Row]],
    each: float,
    unit: Call,
    effort: Effort,
    device: torch.device,
) -> Iterator[Row]:
    """Yields the rows of calls that take turns, `each` being the seconds of one round."""
    rounds = max(LEAST, min(effort.rounds, int(effort.seconds / each)))
    is_step = kept[0][0].operation == "step"
    runs = {"": unit.run} | {call.provider: call.run for call, _ in kept}
    taken = interleaved(runs, effort.steps if is_step else rounds, device, warm=0)
    gradient = float(np.median(taken.pop("")))
    for call, row in kept:
        times = taken[call.provider]
        of_cycle = {"y_value_mean": round(1e3 * float(np.mean(times)), 4)} if is_step else {}
        ratio = float(np.mean(times) if is_step else np.median(times)) / gradient
        yield {**row, **quantiles(times), **of_cycle, "per_gradient": float(f"{ratio:.4g}")}


def _agreement(call: Call, found: Named, reference: Named | None) -> tuple[Row, bool]:
    """Returns what a row says of its numbers, and whether they are the reference's."""
    differs = {"differs": call.differs} if call.differs else {}
    if reference is None:
        return differs, True
    error = relative_error(reference, found)
    limit = AGREE.get(call.operation, AGREE_ELSE)
    agrees = error <= limit or not call.comparable  # no number at all is no agreement
    if not agrees and call.kinks and error <= KINKS:
        agrees, differs = True, {"differs": MOVED}
    return {"error": float(f"{error:.1e}"), **differs}, agrees
