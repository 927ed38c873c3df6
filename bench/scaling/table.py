"""The tables of docs/distributed.md: what the cost model says, and how it stands to gloo."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import product
from statistics import median
from typing import Any

from .machine import CLUSTER, Machine
from .measure import BATCH, EVERY, VGG11
from .model import Setting, calibrated, cost
from .networks import TASKS, Block, Network, described

Row = dict[str, Any]
RANKS = (1, 8, 64, 256, 1024)
MEMORIES: tuple[str | float, ...] = ("replicated", 0.125, "owned")
NEVER = 10**9  # steps to a refresh, for what a step costs without one
PARTS = "linearize", "quadratic", "evaluate", "solve"  # of a step without a refresh


def networks() -> list[Row]:
    """Returns a row for each network, with what its graphs say and the samples of a GPU."""
    return [
        {"network": name, "batch": task.batch, "counts": asdict(task.network)}
        for name, task in TASKS.items()
    ]


def predicted(counted: Sequence[Row], machine: Machine = CLUSTER) -> list[Row]:
    """Returns a row for each network, way to keep factors and number of ranks.

    Args:
        counted: what `networks` gives.
        machine: where they train.
    """
    rows = list[Row]()
    for row, memory, ranks in product(counted, MEMORIES, RANKS):
        blocks = tuple(
            Block(**{**b, "matrices": (*b["matrices"],)}) for b in row["counts"]["blocks"]
        )
        network = Network(**{**row["counts"], "blocks": blocks})
        found = cost(network, Setting(ranks, row["batch"], memory=memory), machine)
        known = {"network": row["network"], "memory": memory, "ranks": ranks}
        numbers = {"ms": 1e3 * found.seconds, "communication": found.share}
        numbers |= {"sent_gb": found.sent / 1e9, "held_gb": found.held / 1e9}
        rows.append(known | {name: round(number, 3) for name, number in numbers.items()})
    return rows


def prediction(rows: Sequence[Row]) -> Iterator[str]:
    """Yields the lines of a table: a line for each network and way, a column for each K."""
    yield f"| | `memory` | K = {' | '.join(f'{k:,}' for k in RANKS)} | GB a rank |"
    yield "|---" * (len(RANKS) + 3) + "|"
    for name, memory in dict.fromkeys((row["network"], row["memory"]) for row in rows):
        found = [row for row in rows if (row["network"], row["memory"]) == (name, memory)]
        shown = [f"{row['ms']:,.0f} ms, {100 * row['communication']:.0f} %" for row in found]
        held = dict.fromkeys(f"{row['held_gb']:.0f}" for row in (found[1], found[-1]))
        yield f"| {name} | {memory} | {' | '.join(shown)} | {' to '.join(held)} |"


def checked(rows: Sequence[Row]) -> Iterator[str]:
    """Yields the lines of a table of the bytes that were counted, and the model's where it errs."""
    columns = sorted({row["ranks"] for row in rows})
    yield f"| | `memory` | K = {' | '.join(map(str, columns))} |"
    yield "|---" * (len(columns) + 2) + "|"
    for name, memory in dict.fromkeys((row["network"], row["memory"]) for row in rows):
        shown = [
            f"{r['counted']:,}"
            if r["counted"] == r["model"]
            else f"{r['counted']:,} ({r['model']:,})"
            for r in rows
            if (r["network"], r["memory"]) == (name, memory)
        ]
        yield f"| {name} | {memory} | {' | '.join(shown)} |"


def timed(rows: Sequence[Row]) -> Iterator[str]:
    """Yields the lines of a table of seconds: the model's, a rank's own work, and in all."""
    yield "| `memory` | | ranks | model | worked | in all |"
    yield "|---|---|---|---|---|---|"
    network = described(VGG11[0](), VGG11[1])
    for made in (row for row in rows if "work" in row):
        memory = made["memory"]
        steps = [row for row in rows if "step" in row and row["memory"] == memory]
        alone = _median(_plain(steps, 1), "worked")
        rest = alone - sum(made["work"][part] for part in PARTS)
        seconds = {**made["work"], "vectors": max(rest, 1e-9)}
        machine = calibrated(network, BATCH, seconds, made["call"], made["byte"])
        for title, every, chosen in (("", NEVER, _plain), ("with a refresh", 1, _refreshing)):
            for ranks in (1, 2):
                setting = Setting(ranks, BATCH // ranks, every, memory)
                found, model = chosen(steps, ranks), cost(network, setting, machine).seconds
                both = (f"{_median(found, name):.2f}" for name in ("worked", "seconds"))
                what = f"a step {title}".strip()
                yield f"| {memory} | {what} | {ranks} | {model:.2f} | {' | '.join(both)} |"
        sooner = " | ".join(f"{_sooner(steps, name):.2f}×" for name in ("worked", "seconds"))
        yield f"| {memory} | {EVERY} steps, two ranks sooner by | | | {sooner} |"


def _plain(steps: Sequence[Row], ranks: int) -> list[Row]:
    """Returns the steps without a factorisation."""
    return [row for row in steps if row["ranks"] == ranks and not row["factorised"]]


def _refreshing(steps: Sequence[Row], ranks: int) -> list[Row]:
    """Returns the steps with a refresh, but for the first."""
    return [r for r in steps if r["ranks"] == ranks and r["step"] and r["step"] % EVERY == 0]


def _median(rows: Sequence[Row], name: str) -> float:
    """Returns the median of a column."""
    return median(row[name] for row in rows)


def _sooner(steps: Sequence[Row], name: str) -> float:
    """Returns how many times sooner two ranks have made all steps but the first, by a column."""
    one, two = (sum(r[name] for r in steps if r["ranks"] == k and r["step"]) for k in (1, 2))
    return one / two
