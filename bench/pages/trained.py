"""Tables of training: the battery, updates to a loss, and K-FAC beside kfac-jax."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import mean, median

from .._entrants import ENTRANTS
from .._problems import PROBLEMS
from .._scores import COUNTED, Row, best, cell, counts, end, shown, ungrouped
from .._scores import table as scores
from .lines import ms, table
from .results import Results

TITLES = {
    "loss": "end loss",
    "validation": "lowest validation loss",
    "updates": "updates",
    "seconds": "seconds",
}


def _runs(results: Results, *names: str) -> list[Row]:
    """Returns the battery's runs of Adam and some optimizers, of all where none is named."""
    groups = results.rows("battery")
    chosen = (group for group in groups if not names or group["optimizer"] in ("adam", *names))
    return [*ungrouped(chosen)]


def battery(results: Results, *names: str) -> Iterator[str]:
    """Yields the table of end losses over those of the best Adam.

    Args:
        results: the files.
        names: the optimizers; all unless given.
    """
    rows = _runs(results, *names)
    troubles = {name: problem.trouble for name, problem in PROBLEMS.items()}
    chosen = names or [name for name in ENTRANTS if name != "adam"]
    yield from scores(rows, troubles, {name: ENTRANTS[name].title for name in chosen})


def battery_counts(results: Results, *names: str) -> Iterator[str]:
    """Yields a line for each optimizer: on how many problems it is ahead of the best Adam.

    Args:
        results: the files.
        names: the optimizers; all unless given.
    """
    chosen = names or [name for name in ENTRANTS if name != "adam"]
    runs = {name: _runs(results, name) for name in chosen}
    head = ["", *(name.strip("*… ") for name in COUNTED)]
    head[2] = "ahead of Adam in the median"
    yield from table(head, ([ENTRANTS[n].title, *counts(runs[n], PROBLEMS, n)] for n in chosen))


def battery_of(results: Results, name: str) -> Iterator[str]:
    """Yields an optimizer's column of the battery: four ratios to the best Adam for each problem.

    Args:
        results: the files.
        name: the optimizer.
    """
    rows = _runs(results, name)
    lines = (
        [
            f"{problem}: {PROBLEMS[problem].trouble}",
            *(cell(rows, problem, name, of) for of in TITLES),
        ]
        for problem in PROBLEMS
    )
    yield from table(["÷ the best Adam's", *TITLES.values()], lines)


def demo(results: Results) -> Iterator[str]:
    """Yields what `examples/demo.py --json` wrote: presets beside the best of a grid."""
    lines: list[list[str]] = []
    for problem in dict.fromkeys(row["problem"] for row in results.rows("demo")):
        title = problem
        for row in results.rows("demo", problem=problem):
            accuracies = [a for a in row["accuracies"] if a]
            reached = zip(row["seconds_to_goal"], row["epochs_to_goal"], strict=True)
            lines.append(
                [
                    title,
                    f"{row['method']}, {row['epochs']} epochs",
                    f"{row['loss']:.3g}",
                    f"{mean(accuracies):.2%}" if accuracies else f"{row['validation_loss']:.4g}",
                    ", ".join(f"{s:.2f} ({n})" if n else "–" for s, n in reached),
                    f"{row['seconds']:.1f}",
                ]
            )
            title = ""
    head = ["train loss", "validation accuracy or loss", "seconds to the goal (epochs)", "in all"]
    yield from table(["", "", *head], lines)


def adam_grid(results: Results) -> Iterator[str]:
    """Yields what the best Adam of the grid came to on each problem."""
    rows = _runs(results, "adam")
    found = {problem: best(rows, problem, "adam") for problem in PROBLEMS}
    lines = (
        [problem, runs[0]["setting"], shown(median(map(end, runs)))]
        for problem, runs in found.items()
    )
    yield from table(["problem", "the best rate", "end loss, median"], lines)


def updates_to_adam(results: Results) -> Iterator[str]:
    """Yields updates and seconds to the end loss of the best Adam, of `bench first_order`."""
    rows = results.rows("cpu-first-order")
    problems = {"digits": "digits, three seeds", "curves": "CURVES, one seed"}
    lines: list[list[str]] = []
    for problem, title in problems.items():
        reached = [row for row in rows if row["problem"] == problem and "goal" in row]
        adams = [
            row for row in rows if row["problem"] == problem and row["method"] == reached[0]["of"]
        ]
        lines.append([title, reached[0]["of"], _updates(adams), _seconds(adams), _losses(adams)])
        for method in dict.fromkeys(row["method"] for row in reached):
            mine = [row for row in reached if row["method"] == method]
            lines.append(["", method, _updates(mine), _seconds(mine), _losses(mine)])
    yield from table(["", "", "updates", "seconds", "loss of all samples"], lines)


def beside_kfac_jax(results: Results) -> Iterator[str]:
    """Yields updates to the best Adam's loss beside kfac-jax, of `bench kfac_jax`."""
    rows = results.rows("cpu-kfac-jax")
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == method]
        each = ms(median(row["median_ms"] for row in mine))
        lines.append([method, _updates(mine), each, _losses(mine)])
    yield from table(["", "updates", "an update, median", "loss of all samples"], lines)


def _updates(rows: list[Row]) -> str:
    """Returns the updates of all seeds; once where they are the same."""
    found = [str(row["updates"]) for row in rows]
    return found[0] if len({*found}) == 1 else ", ".join(found)


def _seconds(rows: list[Row]) -> str:
    """Returns the seconds of all seeds."""
    return ", ".join(f"{row['seconds']:.2f}" for row in rows)


def _losses(rows: list[Row]) -> str:
    """Returns the last losses of all seeds."""
    return ", ".join(f"{row['loss']:.3g}" for row in rows)


TABLES: dict[str, Callable[..., Iterator[str]]] = {
    "battery": battery,
    "battery-counts": battery_counts,
    "battery-of": battery_of,
    "demo": demo,
    "adam-grid": adam_grid,
    "updates-to-adam": updates_to_adam,
    "beside-kfac-jax": beside_kfac_jax,
}
