"""Input factors of VGG11's convolutions, by lags and by unfold with one matrix product.

Milliseconds in one interleaved run, and the most memory that each holds besides input and result.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ..kernels.patch_gram import patch_gram
from ._measure import arguments, interleaved, report

BATCH = 64
LAYERS = ((3, 32), (64, 16), (128, 8), (256, 8), (256, 4), (512, 4), (512, 2), (512, 2))


def unfolded(x: Tensor) -> Tensor:
    """Returns what a user would write: patches as rows, and their product."""
    patches = torch.nn.functional.unfold(x, 3, padding=1)
    rows = patches.transpose(1, 2).reshape(-1, patches.shape[1])
    return rows.T @ rows


class Live(TorchDispatchMode):
    """Counts the bytes of the storages that operators have made.

    Attributes:
        held: the bytes of those that still live.
        peak: the most that lived at a time.
        seen: the addresses of those that still live.
    """

    def __init__(self) -> None:
        super().__init__()
        self.held = self.peak = 0
        self.seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            storage = out.untyped_storage()
            if storage.data_ptr() not in self.seen:
                self.seen.add(storage.data_ptr())
                self.held += storage.nbytes()
                self.peak = max(self.peak, self.held)
                weakref.finalize(storage, self._freed, storage.data_ptr(), storage.nbytes())
        return out

    def _freed(self, address: int, nbytes: int) -> None:
        self.seen.discard(address)
        self.held -= nbytes


def scratch_bytes(call: Callable[[], Tensor], given: Tensor) -> int:
    """Returns the most bytes that a call holds at a time besides its input and its result."""
    with Live() as live:
        live.seen.add(given.untyped_storage().data_ptr())
        result = call()
    in_peak = result.untyped_storage().data_ptr() in live.seen
    return live.peak - in_peak * result.untyped_storage().nbytes()


def main() -> None:
    """Prints a row per layer, and one for all."""
    options = arguments(__doc__)
    torch.manual_seed(0)
    rows: list[dict[str, Any]] = []
    totals = {"unfold_ms": 0.0, "lags_ms": 0.0}
    peaks = {"unfold_MB": 0.0, "lags_MB": 0.0}
    for channels, size in LAYERS:
        x = torch.randn(BATCH, channels, size, size)
        a = x.permute(0, 2, 3, 1).contiguous()
        calls = {
            "unfold": lambda x=x: unfolded(x),
            "lags": lambda a=a: patch_gram(a, (3, 3), padding=(1, 1), homogeneous=True),
        }
        seconds = interleaved(calls, options.rounds)
        row: dict[str, Any] = {"layer": f"{channels} channels, {size}×{size}"}
        for name, call in calls.items():
            row[f"{name}_ms"] = round(1e3 * median(seconds[name]), 1)
            row[f"{name}_MB"] = round(scratch_bytes(call, x if name == "unfold" else a) / 1e6, 1)
            totals[f"{name}_ms"] += row[f"{name}_ms"]
            peaks[f"{name}_MB"] = max(peaks[f"{name}_MB"], row[f"{name}_MB"])
        rows.append({**row, "times_faster": round(row["unfold_ms"] / row["lags_ms"], 2)})
    ratio = totals["unfold_ms"] / totals["lags_ms"]
    rounded = {name: round(value, 1) for name, value in (totals | peaks).items()}
    rows.append({"layer": "all (peak: the largest)", **rounded, "times_faster": round(ratio, 2)})
    report(rows, options.json)


if __name__ == "__main__":
    main()
