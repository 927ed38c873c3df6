"""The figures of a GPU: whole programs, then kernels, then torch.compile, while there is time.

Rows are written after each step, so that what was measured is kept if a later one fails.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
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


def _programs(device: torch.device) -> Iterator[Rows]:
    for precision in PRECISIONS:
        for batch in BATCHES:
            yield second_order.measure(11, batch, precision, ROUNDS, device, compiles=False)


def _kernels(device: torch.device) -> Iterator[Rows]:
    for precision in PRECISIONS:
        most = kernels.peaks(device, precision)
        cases = kernels.cases(kernels.LAYERS, BATCHES[0], precision, device)
        yield [kernels.measure(c, BATCHES[0], 1, False, device, most) for c in cases]


def _vectors(device: torch.device) -> Iterator[Rows]:
    yield vectors.table(device, ROUNDS, compiled=False)


def _compiled(device: torch.device) -> Iterator[Rows]:
    for precision in PRECISIONS:
        yield second_order.measure(11, BATCHES[0], precision, ROUNDS, device)


STEPS: dict[str, Callable[[torch.device], Iterator[Rows]]] = {
    "programs": _programs,
    "vectors": _vectors,
    "kernels": _kernels,
    "compiled": _compiled,
}


def table(seconds: float, path: Path | None) -> int:
    """Prints the rows of every step that starts in time, and returns how many steps failed."""
    device, start, failed = torch.device("cuda"), time.perf_counter(), 0
    for name, step in STEPS.items():
        rows: Rows = []
        try:
            for found in step(device):
                rows += found
                report(found, None)
                if path is not None:
                    report(rows, path.with_stem(f"{path.stem}-{name}"), printed=False)
                if time.perf_counter() - start > seconds:
                    print(f"{name}: the time is up")
                    return failed
        except Exception as error:  # the other steps are still worth their time
            print(f"{name} failed: {type(error).__name__}: {error}")
            failed += 1
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
