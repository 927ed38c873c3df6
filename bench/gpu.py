"""The figures of a GPU: programs, kernels, torch.compile and training, while there is time.

Rows are written after each step, so that what was measured is kept if a later one fails.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from statistics import fmean
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

import newtriton as nt

from ..compiler.graph.errors import NewtritonError
from ..runtime.fused.plan import Plan
from ..runtime.fused.replay import Replays, Work
from . import kernels, second_order, vectors
from ._measure import parser, report, summary

PRECISIONS = ("tf32", "ieee", "bf16")
BATCHES = (200, 32)
ROUNDS = 10

Rows = list[dict[str, Any]]
Step = Callable[[torch.device], Iterator[Rows]]
Case = tuple[str, int, str]  # a network, batch size and precision
CASES: list[Case] = [("vgg11", batch, precision) for precision in PRECISIONS for batch in BATCHES]


def programs(cases: Sequence[Case]) -> Step:
    """Returns the measurement of the programs of some networks."""

    def step(device: torch.device) -> Iterator[Rows]:
        for net, batch, precision in cases:
            yield second_order.measure(net, batch, precision, ROUNDS, device, compiles=())

    return step


def _kernels(device: torch.device) -> Iterator[Rows]:
    for precision in PRECISIONS:
        most = kernels.peaks(device, precision)
        cases = kernels.cases(kernels.LAYERS, BATCHES[0], precision, device)
        yield [kernels.measure(c, BATCHES[0], 1, False, device, most) for c in cases]


def _vectors(device: torch.device) -> Iterator[Rows]:
    yield vectors.table(device, ROUNDS, compiled=False)


def _compiled(device: torch.device) -> Iterator[Rows]:
    for precision in PRECISIONS:
        yield second_order.measure("vgg11", BATCHES[0], precision, ROUNDS, device)


def training(presets: Sequence[str], batch: int, precision: str, steps: int = 60) -> Step:
    """Returns the measurement of training steps on VGG11, and of how their calls were launched."""

    def step(device: torch.device) -> Iterator[Rows]:
        x, y = (t.to(device) for t in second_order.images(batch))
        for name in presets:
            net, loss = nt.models.vgg11(), nt.CrossEntropyLoss()
            model = nt.compile(net, (3, 32, 32), loss, precision=precision, device=device)
            row = {"net": "vgg11", "batch": batch, "precision": precision, "preset": name}
            yield [row | trained(getattr(nt, name)(model), x, y, steps)]

    return step


def trained(optimizer: nt.SecondOrder, x: Tensor, y: Tensor, steps: int) -> dict[str, Any]:
    """Returns the times of the last half of some steps, and how calls of all were launched."""
    seconds = list[float]()
    with launched() as calls:
        for _ in range(steps):
            start = time.perf_counter()
            optimizer.step(x, y)
            if x.is_cuda:
                torch.cuda.synchronize(x.device)
            seconds.append(time.perf_counter() - start)
    last = seconds[steps // 2 :]
    ways, run = Counter[str](), {program: n for (program, way), n in calls.items() if way == "run"}
    for (_, way), count in calls.items():
        ways[way] += count
    times = {"steps": steps, **summary(last), "mean_ms": round(1e3 * fmean(last), 2)}
    return {**times, "calls": dict(ways), "run": run}


@contextmanager
def launched() -> Iterator[Counter[tuple[str, str]]]:
    """Counts calls of fused programs by name and way: launches are run, recorded or replayed."""
    calls, names = Counter[tuple[str, str]](), list[str]()
    of_plan, of_replays = Plan.__call__, Replays.__call__

    def call(plan: Plan, *given: Any) -> Any:
        names[:] = [plan.schedule.graph.name]
        return of_plan(plan, *given)

    def launch(replays: Replays, addresses: Callable[[], Hashable], work: Work) -> None:
        where = addresses()
        again = replays.record is not None and where in replays.known
        way = "run" if not again else "replayed" if replays.known[where] else "recorded"
        calls[names[0], way] += 1
        of_replays(replays, addresses, work)

    with patch.object(Plan, "__call__", call), patch.object(Replays, "__call__", launch):
        yield calls


STEPS: dict[str, Step] = {
    "programs": programs(CASES),
    "vectors": _vectors,
    "kernels": _kernels,
    "compiled": _compiled,
    "steps": training(("FITRE", "KFAC"), BATCHES[0], "tf32"),
}


class Outcome(Enum):
    """How a step has ended."""

    DONE = "done"
    CUT = "cut short"
    FAILED = "failed"


def measure(name: str, step: Step, until: float, path: Path | None) -> Outcome:
    """Prints the rows of a step as they come, and writes them to a file of its own.

    Args:
        name: the step's name, which is added to that of the file.
        step: what is measured.
        until: the time of `time.perf_counter` after which the step is cut short.
        path: the file to whose name the step's is added; None writes none.
    """
    rows: Rows = []
    try:
        for found in step(torch.device("cuda")):
            rows += found
            report(found, None)
            if path is not None:
                report(rows, path.with_stem(f"{path.stem}-{name}"), printed=False)
            if time.perf_counter() > until:
                print(f"{name}: the time is up")
                return Outcome.CUT
    except Exception as error:  # the other steps are still worth their time
        print(f"{name} failed: {type(error).__name__}: {' '.join(str(error).split())}")
        return Outcome.FAILED
    return Outcome.DONE


def table(steps: Mapping[str, Step], seconds: float, path: Path | None) -> int:
    """Prints the rows of every step that starts in time, and returns how many steps failed."""
    until, failed = time.perf_counter() + seconds, 0
    for name, step in steps.items():
        outcome = measure(name, step, until, path)
        failed += outcome is Outcome.FAILED
        if outcome is Outcome.CUT:
            break
    return failed


def add_to(options: argparse.ArgumentParser, steps: Mapping[str, Step]) -> None:
    """Adds the options of measurements on a GPU."""
    options.add_argument("--seconds", type=float, default=300.0, help="no step starts later")
    options.add_argument("--steps", nargs="+", choices=steps, help="these alone, in this order")


def run(steps: Mapping[str, Step], given: argparse.Namespace) -> None:
    """Prints the tables of the steps that are asked for, or of all."""
    if not torch.cuda.is_available():
        raise NewtritonError("this is measured on a GPU, and PyTorch sees none here")
    table({name: steps[name] for name in given.steps or steps}, given.seconds, given.json)


def main() -> None:
    """Prints the tables."""
    options = parser(__doc__)
    add_to(options, STEPS)
    run(STEPS, options.parse_args())


if __name__ == "__main__":
    main()
