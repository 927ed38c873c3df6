"""Host time of calls on fused kernels: what Python does until a GPU has its work, without a GPU.

Launches are rehearsed: they end at a stand-in for the driver, so all that is measured is
newtriton's own. Calls are recorded and replayed, or their launches are made one by one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

import newtriton as nt

from ..compiler.graph.errors import NewtritonError
from ..runtime.checking.rehearsal import Rehearsal, rehearsed
from ._measure import parser, report

FIRST = 4  # calls that load kernels and are recorded, before those that count


class Addresses:
    """Gives memory at the same addresses in every call, as a GPU's allocator does in a loop."""

    def __init__(self) -> None:
        self.known: dict[object, Tensor] = {}

    @contextmanager
    def again(self) -> Iterator[None]:
        """Answers the requests of a call by the memory of the same requests of the last one."""
        empty, like, requests = torch.empty, torch.empty_like, count()

        def request(*size: Any, **what: Any) -> Tensor:
            key = (next(requests), str(size))
            if key not in self.known:
                self.known[key] = empty(*size, **what)
            return self.known[key]

        def request_like(tensor: Tensor, **what: Any) -> Tensor:
            return self.known.setdefault((next(requests), tensor.shape), like(tensor, **what))

        with patch.multiple(torch, empty=request, empty_like=request_like):
            yield


def measure(call: Callable[[], object], rehearsal: Rehearsal, rounds: int) -> dict[str, Any]:
    """Returns the launches and replays of a call, and its median milliseconds."""
    addresses, seconds, before = Addresses(), list[float](), (0, 0)
    for _ in range(FIRST + rounds):
        before = rehearsal.launches, rehearsal.replays
        with addresses.again():
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
    return {
        "launches": rehearsal.launches - before[0],
        "replays": rehearsal.replays - before[1],
        "host_ms": round(1e3 * median(seconds[FIRST:]), 2),
    }


def rows(precision: str, recorded: bool, batch: int, rounds: int) -> list[dict[str, Any]]:
    """Returns a row per call on VGG19."""
    with rehearsed() as rehearsal:
        model = rehearsal.model(
            nt.models.vgg19(), (3, 32, 32), nt.CrossEntropyLoss(), precision, recorded
        )
        x, y = torch.randn(batch, 3, 32, 32), torch.arange(batch) % 10
        lin, v = model.linearize(x, y), torch.randn_like(model.params)
        calls: dict[str, Callable[[], object]] = {
            "hvp": lambda: lin.hvp(v),
            "ggnvp": lambda: lin.ggnvp(v),
            "quadratic form": lambda: lin.quadratic_forms([v]),
            "factors": lambda: lin.kronecker_factors("kfac"),
        }
        how = "replayed" if recorded else "one by one"
        return [
            {"call": name, "precision": precision, "launched": how}
            | measure(call, rehearsal, rounds)
            for name, call in calls.items()
        ]


def main() -> None:
    """Prints a row per call and way of launching."""
    options = parser(__doc__)
    options.add_argument("--batch", type=int, default=32, help="the batch size")
    options.add_argument("--precision", default="tf32", help="the precision of contractions")
    given = options.parse_args()
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise NewtritonError("launches are measured, not the interpreter: unset TRITON_INTERPRET")
    torch.set_num_threads(1)
    found = [rows(given.precision, way, given.batch, given.rounds) for way in (True, False)]
    report([row for both in found for row in both], given.json)


if __name__ == "__main__":
    main()
