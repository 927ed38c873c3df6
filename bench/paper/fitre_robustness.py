"""How much FITRE's γ and Δ_max matter beside SGD's learning rate (Kylasa et al. 2020, Table 10)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from .experiment import Experiment, Finding, Row, Setting
from .figures import grid, panels
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

WELL = 0.02  # a point trains well where its accuracy is at most so much below the best one's

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


def scores(
    rows: Sequence[Row], method: str, names: Sequence[str], of: str = "final_accuracy"
) -> Scores:
    """Returns the points of a method with their scores; a run that failed counts as chance."""
    found: dict[Point, list[float]] = {}
    for row in rows:
        if row["method"] == method:
            failed = row.get("fault") or row[of] is None
            value = (0.0 if of == "final_accuracy" else float("nan")) if failed else row[of]
            found.setdefault(tuple(row[name] for name in names), []).append(value)
    return {point: median(values) for point, values in found.items()}


def share(found: Scores, best: float, within: float = WELL) -> str:
    """Returns how many points are at most `within` below the best, as "k of n"."""
    return f"{good(found, best, within)} of {len(found)}"


def good(found: Scores, best: float, within: float = WELL) -> int:
    """Returns how many points are at most `within` below the best."""
    return sum(value >= best - within for value in found.values())


def decade_away(found: Scores) -> float:
    """Returns what the worst neighbour of the best point, ten times off in one option, loses."""
    best = max(found, key=lambda point: found[point])
    losses = [
        found[best] - value
        for point, value in found.items()
        if sorted(abs(round(np.log10(p / q))) for p, q in zip(point, best, strict=True))
        == [0] * (len(best) - 1) + [1]
    ]
    return max(losses, default=0.0)


def findings(rows: list[Row]) -> list[Finding]:
    """Returns what the rows say of Table 10."""
    return [finding for name, group in groups(rows).items() for finding in found_of(name, group)]


def found_of(name: str, rows: list[Row]) -> Iterator[Finding]:
    """Yields the findings on one network."""
    points = {case: scores(rows, f"FITRE {case}", ("damping", "radius")) for case in CASES}
    fitre_points, rates = points[CASES[0]], scores(rows, SGD, ("rate",))
    best = max(*fitre_points.values(), *rates.values())
    region = {point: value for point, value in fitre_points.items() if typical(point)}
    tolerances = "; ".join(
        f"{100 * within:g} points: {share(fitre_points, best, within)} and "
        f"{share(rates, best, within)}"
        for within in (0.01, 0.05, 0.1)
    )
    most_typical = 2 * good(region, best) > len(region)
    yield Finding(
        "γ between 1e-2 and 10 and Δ_max between 0.1 and 10 are typical, and most combinations "
        'give "almost identical results" (section 4 and Table 10).',
        f"{name}: {share(region, best)} of these combinations, {share(fitre_points, best)} of "
        f"the whole grid, end within {100 * WELL:g} points of the best test accuracy "
        f"({best:.1%}); {share(fitre_points, best)} γ × Δ_max.",
        "agrees" if most_typical else "contradicts",
        f"the share within {100 * WELL:g} points is ours: the paper has curves and no number. "
        f"Within {tolerances}, of FITRE's points and of SGD's rates.",
    )
    fewer_rates = good(rates, best) * len(fitre_points) < good(fitre_points, best) * len(rates)
    steeper = decade_away(rates) > decade_away(fitre_points)
    yield Finding(
        'SGD\'s "behavior changes significantly with slight changes in learning rate" (section 4 '
        "and Table 10).",
        f"{name}: {share(rates, best)} rates end as well; a rate ten times off the best loses "
        f"{100 * decade_away(rates):.1f} points at worst, γ or Δ_max ten times off "
        f"{100 * decade_away(fitre_points):.1f}.",
        "agrees"
        if fewer_rates and steeper
        else "open"
        if fewer_rates or steeper
        else "contradicts",
        "",
    )


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
            grid(ax, 100 * matrix, names[0], names[1], "{:.0f}")
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
