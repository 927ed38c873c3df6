"""How time, FLOPs and bytes grow: a power of batch, depth, width or classes, by least squares."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

import newtriton as nt

from ...compiler.graph.cost import flops, traffic
from ...compiler.graph.errors import NewtritonError
from ...compiler.graph.program import Program
from ...compiler.programs import Programs
from .measuring import Place, Row
from .ours import NAME
from .problem import Problem

SERIES = ("kernel_name", "x_name", "kernel_operation", "provider", "metric_name")


@dataclass(frozen=True)
class Exponent:
    """The power p of y ∝ xᵖ.

    Attributes:
        power: p, the slope of log y over log x.
        error: its standard error; 0 of two points.
        points: how many there were.
    """

    power: float
    error: float
    points: int


def exponent(xs: Sequence[float], ys: Sequence[float]) -> Exponent:
    """Fits log y = p log x + c by least squares.

    Args:
        xs: two or more different positive numbers.
        ys: a positive number for each.

    Raises:
        NewtritonError: there are fewer than two different x, or a number is not positive.

    Examples:
        >>> found = exponent([1, 2, 4], [3, 12, 48])
        >>> round(found.power, 6), round(found.error, 6)
        (2.0, 0.0)
    """
    from scipy.stats import linregress  # noqa: PLC0415 (scikit-learn brings it; slow to import)

    if len(set(xs)) < 2 or min(*xs, *ys) <= 0:
        raise NewtritonError(f"there is no exponent of {list(ys)} over {list(xs)}")
    fit: Any = linregress(np.log(xs), np.log(ys))
    return Exponent(float(fit.slope), float(fit.stderr) if len(xs) > 2 else 0.0, len(xs))


def exponents(rows: Iterable[Row]) -> dict[tuple[str, ...], Exponent]:
    """Returns the exponents of all series that have two points, by `SERIES`."""
    found = dict[tuple[str, ...], Exponent]()
    known = [row for row in rows if "y_value_50" in row]

    def key(row: Row) -> tuple[str, ...]:
        return tuple(str(row[name]) for name in SERIES)

    for series, group in groupby(sorted(known, key=key), key):
        points = {row["x_value"]: row["y_value_50"] for row in group}
        if len(points) > 1 and min(points.values()) > 0:
            found[series] = exponent(list(points), list(points.values()))
    return found


def counted(problem: Problem, place: Place, wanted: Iterable[str]) -> Iterator[Row]:
    """Yields the FLOPs and bytes of our operations, counted in their graphs; nothing is run.

    Each is a linearization and what follows on its tape, one operator after another.
    """
    model = nt.from_torch(problem.copy(), problem.x, nt.CrossEntropyLoss())
    programs, layers = model.programs[True], frozenset(problem.layers)
    parts = _programs(programs, layers, model.two_products(problem.samples))
    for operation in wanted:
        if operation not in parts:
            continue
        graphs = [each.graph for each in parts[operation]]
        work = sum(flops(graph, problem.samples) for graph in graphs)
        moved = sum(traffic(graph, problem.samples, model.params.itemsize) for graph in graphs)
        yield {**place.row(operation, NAME, "flops", "GFLOP"), "y_value_50": work / 1e9}
        yield {**place.row(operation, NAME, "bytes", "MB"), "y_value_50": moved / 1e6}


def _programs(
    programs: Programs, layers: frozenset[str], two_products: bool
) -> Mapping[str, Sequence[Program]]:
    """Returns the programs that an operation runs."""
    start = programs.linearize
    return {
        "gradient": [start],
        "hvp": [start, programs.hvp],
        "ggnvp": [start, programs.ggnvp],
        "form": [start, programs.quadratic(1, two_products=two_products)],
        "forms": [start, programs.quadratic(2, two_products=two_products)],
        "kfac": [start, programs.factors("kfac", layers=layers)],
    }
