"""How much FITRE's γ and Δ_max matter beside SGD's learning rate (Kylasa et al. 2020, Table 10)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from math import log10
from statistics import mean, median
from typing import TYPE_CHECKING

import numpy as np

from ..protocol.experiment import Experiment, Finding, Row, Setting
from ..protocol.figures import grid as table
from ..protocol.figures import panels
from .fitre_training import (
    CASES,
    DAMPINGS,
    DEFAULTS,
    PAPER,
    RADII,
    SGD,
    SMALL,
    SMOKE,
    Problem,
    Task,
    brief,
    defaults,
    fitre,
    sgd,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WELL = 0.05  # a point trains well where its accuracy is at most so much below the best one's
EQUAL = 0.02  # and gives an "almost identical" result where it is at most so much below

Point = tuple[float, ...]
Scores = dict[Point, float]  # a point's accuracy at the end, the median of its seeds


def measure(setting: Setting) -> list[Row]:
    """Returns a row for every point of both grids and every seed."""
    every_point = tuple(product(DAMPINGS, RADII))
    scale = setting.of(
        smoke=replace(SMOKE, points=((0.1, 1.0), (1.0, 0.1)), rates=(0.1, 1.0)),
        default=replace(SMALL, epochs=5, longer=4, points=every_point),
        full=PAPER,
    )
    depths = setting.of(smoke=(11,), default=(11,), full=(11, 16, 19))
    inits = setting.of(smoke=("kaiming",), default=("kaiming",), full=("kaiming", "default"))
    rows: list[Row] = []
    for depth, init in product(depths, inits):
        task = Task.of(Problem("Table 10", "cifar100", depth, init), scale, setting)
        rows += map(brief, swept(task, whole=setting.size == "full"))
    return rows


def swept(task: Task, whole: bool) -> Iterator[Row]:
    """Yields the rows of a problem.

    Unless it is `whole`, cases beyond the table's have one seed and the paper's typical points.
    """
    for case in CASES:
        few = not whole and case != CASES[0]
        points = [p for p in task.scale.points if not few or typical(p)]
        for (damping, radius), seed in product(points, task.seeds[:1] if few else task.seeds):
            options = {"case": case, "damping": damping, "radius": radius, "every": 5}
            yield task.run(f"FITRE {case}", fitre, options, seed)
    yield from task.runs(DEFAULTS, defaults, {})
    for rate in task.scale.rates:
        yield from task.runs(SGD, sgd, {"rate": rate}, longer=True)


def typical(point: Point) -> bool:
    """Whether the paper calls γ "well behaved" and Δ_max "typical"."""
    damping, radius = point
    return 1e-2 <= damping <= 10 and 1e-1 <= radius <= 10


# --- what the rows say ---------------------------------------------------------------------------


def groups(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Returns the rows of each network by its name and first weights."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(f"{row['network']}, {row['init']} weights", []).append(row)
    return found


def scores(rows: Sequence[Row], method: str, names: Sequence[str]) -> Scores:
    """Returns the points of a method with their accuracies; a run that failed has 0."""
    found: dict[Point, list[float]] = {}
    for row in rows:
        if row["method"] == method:
            value = 0.0 if row.get("fault") else row["final_accuracy"] or 0.0
            found.setdefault(tuple(row[name] for name in names), []).append(value)
    return {point: median(values) for point, values in found.items()}


def good(found: Scores, best: float, within: float = WELL) -> int:
    """Returns how many points are at most `within` below the best."""
    return sum(value >= best - within for value in found.values())


def share(found: Scores, best: float, within: float = WELL) -> str:
    """Returns how many points are at most `within` below the best, as "k of n"."""
    return f"{good(found, best, within)} of {len(found)}"


def after_a_decade(found: Scores, best: float) -> list[float]:
    """Returns the accuracies ten times off, in one option, from points that train well."""
    return [
        value
        for point in found
        if found[point] >= best - WELL
        for other, value in found.items()
        if sum(decades(point, other)) == 1
    ]


def steady(accuracies: Sequence[float], best: float) -> float:
    """Returns the share of accuracies that are those of points that train well."""
    return mean([value >= best - WELL for value in accuracies] or [0.0])


def decades(point: Point, other: Point) -> list[int]:
    """Returns how many powers of ten two points are apart in each option."""
    return [abs(round(log10(p / q))) for p, q in zip(point, other, strict=True)]


def findings(rows: list[Row]) -> list[Finding]:
    """Returns what the rows say of Table 10."""
    return [finding for name, group in groups(rows).items() for finding in found_of(name, group)]


def found_of(name: str, rows: list[Row]) -> Iterator[Finding]:
    """Yields the findings on one network."""
    points = {case: scores(rows, f"FITRE {case}", ("damping", "radius")) for case in CASES}
    grid, rates = points[CASES[0]], scores(rows, SGD, ("rate",))
    best = max(*grid.values(), *rates.values())
    region = {point: value for point, value in grid.items() if typical(point)}
    most, all_but_equal = (2 * good(region, best, x) > len(region) for x in (EQUAL, WELL))
    yield Finding(
        "γ between 1e-2 and 10 and Δ_max between 0.1 and 10 are typical, and most combinations "
        'give "almost identical results" (section 4 and Table 10).',
        f"{name}: {share(region, best, EQUAL)} of these combinations end within "
        f"{100 * EQUAL:g} points of the best test accuracy, {best:.1%}, and {share(region, best)} "
        f"within {100 * WELL:g}; of the whole grid {share(grid, best, EQUAL)} and "
        f"{share(grid, best)}.",
        "agrees" if most else "open" if all_but_equal else "contradicts",
        "the bounds are ours, for the paper has curves and no number."
        + unfinished(rows, region, best),
    )
    fewer = good(rates, best) * len(grid) < good(grid, best) * len(rates)
    beside = {
        option: after_a_decade(values, best) for option, values in (("γ", grid), ("rate", rates))
    }
    steeper = steady(beside["rate"], best) < steady(beside["γ"], best)
    least = {option: min(values, default=0.0) for option, values in beside.items()}
    yield Finding(
        'SGD\'s "behavior changes significantly with slight changes in learning rate", which '
        "FITRE's does not (section 4 and Table 10).",
        f"{name}: {share(rates, best)} rates end within {100 * WELL:g} points of the best, and "
        f"{share(grid, best)} γ × Δ_max. From such a rate a step of ten times leads to another in "
        f"{steady(beside['rate'], best):.0%} of cases, and to {least['rate']:.1%} at worst; from "
        f"such a point a step of ten times in γ or Δ_max in {steady(beside['γ'], best):.0%}, and "
        f"to {least['γ']:.1%} at worst. Newtriton's defaults, with nothing to choose, end at "
        f"{scores(rows, DEFAULTS, ())[()]:.1%}.",
        "agrees" if fewer and steeper else "open" if fewer or steeper else "contradicts",
        f"the radius follows ρ: {refusals(rows)}. What it cannot mend is a Δ_max that is too "
        f"small: {travel(rows)}.",
    )
    others = ", ".join(
        f"{share({p: v for p, v in points[case].items() if typical(p)}, best)} with {case}"
        for case in CASES
    )
    yield Finding(
        'Table 10 has the "KFAC + gradient option" turned off.',
        f"{name}: of the typical combinations {others} end within {100 * WELL:g} points.",
        "open",
        "there is nothing to compare with.",
    )


def unfinished(rows: Sequence[Row], region: Scores, best: float) -> str:
    """Returns the training losses of points that are equal to the best, and of others."""
    near = {point for point, value in region.items() if value >= best - EQUAL}
    losses: dict[bool, list[float]] = {True: [], False: []}
    for row in of_grid(rows):
        if (point := (row["damping"], row["radius"])) in region and row["final_loss"] is not None:
            losses[point in near].append(row["final_loss"])
    if not all(losses.values()):
        return ""
    return (
        f" The median training loss is {median(losses[True]):.2g} where they are as good as the "
        f"best and {median(losses[False]):.2g} elsewhere."
    )


def refusals(rows: Sequence[Row]) -> str:
    """Returns the share of refused steps by Δ_max."""
    shares: dict[float, list[float]] = {}
    for row in of_grid(rows):
        shares.setdefault(row["radius"], []).append(row["refused_share"])
    listed = ", ".join(f"{mean(shares[r]):.0%} for {r:g}" for r in sorted(shares))
    return f"the share of steps that are refused is, by Δ_max, {listed}"


def travel(rows: Sequence[Row]) -> str:
    """Returns how far the weights move with the smallest Δ_max, and with the best points."""
    found = list(of_grid(rows))
    least = min(row["radius"] for row in found)
    short = max(row["moved"] for row in found if row["radius"] == least)
    best = max(found, key=lambda row: row["final_accuracy"] or 0.0)
    return (
        f"with {least:g} weights move by {short:.2g} at most, the best run's by {best['moved']:.2g}"
    )


def of_grid(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows of FITRE's grid."""
    return [row for row in rows if row["method"] == f"FITRE {CASES[0]}" and not row.get("fault")]


def figure(rows: list[Row]) -> Figure:
    """Draws accuracies over γ × Δ_max for each case, and over SGD's rates."""
    found = groups(rows)
    made, axes = panels(len(found), len(CASES) + 1)
    for line, (name, group) in zip(axes, found.items(), strict=True):
        for ax, case in zip(line, CASES, strict=False):
            values = scores(group, f"FITRE {case}", ("damping", "radius"))
            dampings, radii = (sorted({point[i] for point in values}) for i in (0, 1))
            matrix = np.array([[values.get((d, r), np.nan) for r in radii] for d in dampings])
            names = [[f"{value:g}" for value in part] for part in (dampings, radii)]
            table(ax, 100 * matrix, names[0], names[1], "{:.0f}", limits=(0.0, 100.0))
            ax.set(xlabel="Δ_max", ylabel="γ", title=f"FITRE {case}: test accuracy, %")
        rates = scores(group, SGD, ("rate",))
        ax = line[-1]
        ax.plot([p[0] for p in rates], [100 * v for v in rates.values()], "o-", label=SGD)
        ours = scores(group, DEFAULTS, ())
        for value in ours.values():
            ax.axhline(100 * value, color="C2", label=DEFAULTS)
        ax.set(xscale="log", xlabel="learning rate", ylabel="test accuracy, %", title=name)
        ax.grid(alpha=0.3)
        ax.legend(fontsize="small")
    return made


ROBUSTNESS = Experiment(
    "How many of FITRE's γ and Δ_max train well, and how many of SGD's learning rates?",
    "Table 10",
    measure,
    figure,
    findings,
)
