"""Pictures of rows: curves with the range of the seeds, and tables in colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .experiment import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def panels(rows: int, columns: int) -> tuple[Figure, np.ndarray]:
    """Returns a figure that belongs to no window, and its axes as rows × columns."""
    from matplotlib.figure import Figure  # noqa: PLC0415 (slow to import)

    figure = Figure(figsize=(5 * columns, 3.6 * rows), layout="constrained", dpi=100)
    return figure, figure.subplots(rows, columns, squeeze=False)


def curves(
    axes: Axes, rows: Sequence[Row], x: str, y: str, *, by: str = "method", log: bool = True
) -> None:
    """Draws a line for each group of rows: the median over its seeds, and their range.

    Args:
        axes: where to draw.
        rows: rows with lists under `x` and `y`.
        x: the field of the horizontal axis.
        y: the field of the vertical axis.
        by: the field whose values are the groups, which the legend names.
        log: whether the vertical axis is logarithmic.
    """
    positive = False
    for index, name in enumerate(dict.fromkeys(row[by] for row in rows)):
        found = [row for row in rows if row[by] == name]
        shortest = min(len(row[y]) for row in found)
        at = np.median([row[x][:shortest] for row in found], axis=0)
        values = np.array([row[y][:shortest] for row in found], dtype=float)
        positive = positive or bool((values > 0).any())
        axes.plot(at, np.median(values, axis=0), color=f"C{index % 10}", label=str(name))
        axes.fill_between(
            at, values.min(axis=0), values.max(axis=0), color=f"C{index % 10}", alpha=0.15
        )
    axes.set(xlabel=x, ylabel=y.replace("_", " "))
    if log and positive:
        axes.set_yscale("log", nonpositive="mask")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def one_legend(line: Sequence[Axes]) -> None:
    """Leaves pictures with the same curves one legend, beside the last."""
    for axes in line:
        if (legend := axes.get_legend()) is not None:
            legend.remove()
    line[-1].legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))


def grid(
    axes: Axes,
    values: np.ndarray,
    rows: Sequence[object],
    columns: Sequence[object],
    text: str = "{:.2g}",
    limits: tuple[float, float] | None = None,
) -> None:
    """Draws a matrix as colours with its numbers; what is not a number is left white.

    Args:
        axes: where to draw.
        values: the matrix.
        rows: the names of its rows.
        columns: the names of its columns.
        text: the format of its numbers.
        limits: the values of the first and the last colour; the least and the largest unless given.
    """
    low, high = limits or (None, None)
    image = axes.imshow(values, aspect="auto", cmap="viridis", vmin=low, vmax=high)
    middle = float(np.mean(image.get_clim())) if np.isfinite(values).any() else 0.0
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            color = "white" if value < middle else "black"
            axes.text(j, i, text.format(value), ha="center", va="center", color=color)
    axes.set_xticks(range(len(columns)), [str(name) for name in columns])
    axes.set_yticks(range(len(rows)), [str(name) for name in rows])
