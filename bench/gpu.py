"""The figures of a GPU: whole programs, then kernels, then torch.compile, while there is time.

Rows are written after each step, so that what was measured is kept if a later one fails.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import torch

from ..compiler.graph.errors import NewtritonError
from . import kernels, second_order, vectors
from ._measure import parser, report

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
            yield second_order.measure(net, batch, precision, ROUNDS, device, compiles=False)

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


STEPS: dict[str, Step] = {
    "programs": programs(CASES),
    "vectors": _vectors,
    "kernels": _kernels,
    "compiled": _compiled,
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


def table(seconds: float, path: Path | None) -> int:
    """Prints the rows of every step that starts in time, and returns how many steps failed."""
    until, failed = time.perf_counter() + seconds, 0
    for name, step in STEPS.items():
        outcome = measure(name, step, until, path)
        failed += outcome is Outcome.FAILED
        if outcome is Outcome.CUT:
            break
    return failed


def main() -> None:
    """Prints the tables."""
    options = parser(__doc__)
    options.add_argument("--seconds", type=float, default=300.0, help="no step starts later")
    given = options.parse_args()
    if not torch.cuda.is_available():
        raise NewtritonError("bench gpu needs a GPU, and PyTorch sees none here")
    table(given.seconds, given.json)


if __name__ == "__main__":
    main()
