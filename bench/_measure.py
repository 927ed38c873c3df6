"""Measuring side by side: interleaved runs, medians, and rows that say where they come from."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch

from ..compiler.graph.errors import NewtritonError
from ..runtime.arguments import Parser
from ..runtime.disk import read_json

CPU = torch.device("cpu")
WARM = 3  # rounds that do not count: kernels are loaded, measured against others, recorded


class Elapsed(float):
    """Seconds that another process took for a call, as it says: asking it does not count."""


def interleaved(
    calls: Mapping[str, Callable[[], object]],
    rounds: int,
    device: torch.device = CPU,
    warm: int | None = None,
) -> dict[str, list[float]]:
    """Returns the seconds of each call in each round, on a GPU until it has finished.

    A call that returns `Elapsed` took that long. Before the rounds there are `warm` that do not
    count, one on a CPU and `WARM` on a GPU unless given.
    """
    before = (WARM if device.type == "cuda" else 1) if warm is None else warm
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(-before, rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            found = call()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if i >= 0:
                own = found if isinstance(found, Elapsed) else time.perf_counter() - start
                seconds[name].append(own)
    return seconds


def tried(calls: Mapping[str, Callable[[], object]], device: torch.device = CPU) -> dict[str, int]:
    """Returns the calls that run here, and the most bytes of a GPU that each takes when warm.

    The others are told. What is held from one call to the next counts with the one that took it and
    with those after it of the same contender, whose name stands before the colon. On a CPU nothing
    is counted.
    """
    found, before, last = dict[str, int](), 0, ""
    on_gpu = device.type == "cuda"
    for name, call in calls.items():
        who = name.split(":")[0]
        if on_gpu and who != last:
            before, last = torch.cuda.memory_allocated(device), who
        try:
            for _ in range(WARM + 1 if on_gpu else 1):
                if on_gpu:
                    torch.cuda.reset_peak_memory_stats(device)
                call()
        except Exception as error:  # a compiler refuses, or memory is too small
            why = " ".join(str(error).split())[:200]
            print(f"{name} does not run: {type(error).__name__}: {why}")
        else:
            found[name] = torch.cuda.max_memory_allocated(device) - before if on_gpu else 0
    return found


def summary(seconds: list[float]) -> dict[str, float]:
    """Returns the median and the 90th percentile in milliseconds."""
    ninety = quantiles(seconds, n=10)[-1] if len(seconds) > 1 else seconds[0]
    return {"median_ms": round(1e3 * median(seconds), 2), "p90_ms": round(1e3 * ninety, 2)}


def machine() -> dict[str, Any]:
    """Returns device, versions and date, for every file of results."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":")[1].strip() if names else model
    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return gpu | {
        "date": date.today().isoformat(),
        "device": f"{model}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def parser(description: str | None) -> argparse.ArgumentParser:
    """Returns a parser of `--rounds` and `--json`, which every measurement takes."""
    result = Parser(description=description)
    result.add_argument("--rounds", type=int, default=7, help="runs of each call")
    result.add_argument("--json", type=Path, help="where to write the rows")
    return result


def arguments(description: str | None) -> argparse.Namespace:
    """Returns the options of a measurement that takes no others."""
    return parser(description).parse_args()


def report(
    rows: list[dict[str, Any]],
    path: Path | None,
    printed: bool = True,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Prints a table, and writes the rows with the machine's description and what else is said."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[str(row.get(name, "")) for name in columns] for row in rows]
    widths = [max(map(len, (name, *column))) for name, *column in zip(columns, *cells, strict=True)]
    for line in (columns, *cells) if printed else ():
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
        told = json.dumps(machine() | dict(about or {}))
        part = path.with_name(f"{path.name}.part")  # whoever is interrupted has a whole file
        part.write_text(f'{{"machine": {told},\n "rows": [\n{lines}\n ]}}\n')
        part.replace(path)


def known_rows(path: Path | None, *names: str) -> list[dict[str, Any]]:
    """Returns the rows that a file has, none where there is no file.

    Args:
        path: the file, None for none.
        names: what every row has.

    Raises:
        NewtritonError: it is a file of something else.
    """
    if path is None or not os.path.lexists(path):
        return []
    found = read_json(path)
    rows = found.get("rows") if isinstance(found, dict) else None
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and row.keys() >= set(names) for row in rows
    ):
        having = f" with {', '.join(names)}" if names else ""
        raise NewtritonError(f"{path} holds no rows{having}: choose another file")
    return rows
