"""What the runs of `bench battery` amount to: the best of each grid, and ratios to Adam's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from statistics import median
from typing import Any

Row = dict[str, Any]  # of a run
KEY = ("problem", "optimizer", "setting")
FLOOR = 1e-7  # of a loss at the start: float32 knows no difference below


def end(row: Row, of: str = "end") -> float:
    """Returns a run's last loss, `FLOOR` of its first one at least; infinite if not finite."""
    return max(row[of], FLOOR * row["start"]) if of in row else math.inf


def best(rows: Iterable[Row], problem: str, optimizer: str) -> list[Row]:
    """Returns the runs of a grid's best setting, by seed: that of the lowest mean of end losses.

    A run with a fault counts as infinite.
    """
    settings: dict[str, list[Row]] = {}
    for row in rows:
        if (row["problem"], row["optimizer"]) == (problem, optimizer):
            settings.setdefault(row["setting"], []).append(row)

    def mean(runs: list[Row]) -> float:
        return sum(math.inf if "fault" in run else end(run) for run in runs) / len(runs)

    chosen = min(settings.values(), key=mean, default=[])
    return sorted(chosen, key=lambda run: run["seed"])


def losses(run: Row, adam: Row) -> float:
    """Returns the ratio of end losses."""
    return end(run) / end(adam)


def validation(run: Row, adam: Row) -> float:
    """Returns the ratio of the lowest validation losses on the way."""
    return end(run, "least_validation") / end(adam, "least_validation")


def seconds(run: Row, adam: Row) -> float:
    """Returns the share of seconds to Adam's end loss; Adam's are those beside the run."""
    return run.get("goal_seconds", math.inf) / run.get("adam_seconds", math.inf)


def updates(run: Row, adam: Row) -> float:
    """Returns the share of updates to Adam's end loss."""
    return run.get("goal_updates", math.inf) / adam["updates"]


RATIOS: dict[str, Callable[[Row, Row], float]] = {
    "loss": losses, "validation": validation, "seconds": seconds, "updates": updates,
}  # fmt: skip


def ratios(rows: list[Row], problem: str, optimizer: str, of: str) -> list[float]:
    """Returns a ratio for each seed; none where the optimizer does not take the network."""
    adam = {run["seed"]: run for run in best(rows, problem, "adam")}
    runs = best(rows, problem, optimizer)
    return [
        RATIOS[of](run, adam[run["seed"]])
        for run in runs
        if "refused" not in run and run["seed"] in adam
    ]


def shown(value: float) -> str:
    """Returns a ratio in two digits."""
    return "∞" if math.isinf(value) else f"{value:.2g}" if value < 99.5 else f"{value:.0e}"


def cell(rows: list[Row], problem: str, optimizer: str, of: str) -> str:
    """Returns median (worst) of the ratios, with † where a run has a fault."""
    found = ratios(rows, problem, optimizer, of)
    if not found:
        return "–"
    faults = any("fault" in run for run in best(rows, problem, optimizer))
    middle, worst = shown(median(found)), shown(max(found))
    return middle + ("" if middle == worst else f" ({worst})") + (" †" if faults else "")


def counts(rows: list[Row], problems: Iterable[str], optimizer: str) -> Iterator[str]:
    """Yields the last lines of the table for an optimizer."""
    parts = {p: [row for row in rows if row["problem"] == p] for p in problems}
    by_problem = {of: [ratios(parts[p], p, optimizer, of) for p in parts] for of in RATIOS}
    for of, take in (("loss", max), ("loss", median), ("validation", median), ("seconds", median)):
        found = [take(r) for r in by_problem[of] if r]
        yield f"{sum(value < 1.0 for value in found)} of {len(found)}"
    runs = [run for p in parts for run in best(parts[p], p, optimizer) if "refused" not in run]
    yield f"{sum('fault' in run for run in runs)} of {len(runs)}"


COUNTED = (
    "**ahead of Adam, all seeds**", "… in the median", "lowest validation loss, median",
    "fewer seconds, median", "runs with a fault",
)  # fmt: skip


def table(
    rows: list[Row], problems: Mapping[str, str], titles: Mapping[str, str], of: str = "loss"
) -> Iterator[str]:
    """Yields the lines of a table in Markdown.

    Args:
        rows: all runs.
        problems: what is hard about each problem, by name; a line each.
        titles: the columns' titles by optimizer, without Adam.
        of: one of `RATIOS`.
    """
    yield "| | best Adam | " + " | ".join(titles.values()) + " |"
    yield "|---" * (len(titles) + 2) + "|"
    for problem, trouble in problems.items():
        part = [row for row in rows if row["problem"] == problem]
        adam = best(part, problem, "adam")
        first = f"{median(map(end, adam)):.2g}, {adam[0]['setting']}"
        cells = [cell(part, problem, optimizer, of) for optimizer in titles]
        yield f"| {problem}: {trouble} | {first} | " + " | ".join(cells) + " |"
    columns = [list(counts(rows, problems, optimizer)) for optimizer in titles]
    for name, *values in zip(COUNTED, *columns, strict=True):
        yield f"| {name} | | " + " | ".join(values) + " |"


def grouped(rows: Iterable[Row]) -> Iterator[Row]:
    """Yields a row per problem, optimizer and setting, with a list over the seeds in each field."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[k] for k in KEY), []).append(row)
    for key, runs in groups.items():
        runs.sort(key=lambda run: run["seed"])
        fields = dict.fromkeys(field for run in runs for field in run if field not in KEY)
        lists = {field: [run.get(field) for run in runs] for field in fields}
        yield dict(zip(KEY, key, strict=True)) | lists


def ungrouped(groups: Iterable[Row]) -> Iterator[Row]:
    """Yields the runs of what `grouped` gave."""
    for group in groups:
        for i in range(len(group["seed"])):
            of_run = {field: v if field in KEY else v[i] for field, v in group.items()}
            yield {field: v for field, v in of_run.items() if v is not None}
