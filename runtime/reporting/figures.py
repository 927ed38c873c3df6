"""Pictures of charts: as files, or as SVG that takes its colours from the page around it."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ...compiler.graph.errors import NewtritonError, one_line
from ...compiler.graph.options import check_names, check_option
from ..charting import colours
from ..charting.saving import charts
from .charts import draw
from .quantities import AXES, AXIS, recorded
from .reading import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (3.75, 2.35)  # inches of a chart in a page
FINE = re.compile(r"-?\d+\.\d{3,}")  # numbers that are finer than can be seen
SIZED = re.compile(r'\b(?:width|height)="[^"]*"\s*')  # a picture in a page is as wide as its place
# Text stays text, and names of parts are the same each time.
AS_TEXT: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "newtriton"}


def figure_of(runs: Sequence[Run], what: Sequence[str], against: Sequence[str]) -> Figure:
    """Returns a picture with a chart for each quantity, in a row for each axis.

    Args:
        runs: the runs, whose names are in the legend where there are several.
        what: names of quantities.
        against: "epochs", "steps" or "seconds".

    Raises:
        NewtritonError: an axis is unknown, or no run has recorded a quantity.
    """
    for axis in check_names("against", against):
        check_option("against", axis, AXES)
    known = recorded(runs)
    for name in check_names("what", what):
        check_option("what", name, tuple(known))
    if not what or not against:
        raise NewtritonError("there is nothing to draw: name a quantity and an axis")
    figure, rows = charts(len(against), len(what))
    for row, axis in zip(rows, against, strict=True):
        for axes, name in zip(row, what, strict=True):
            axes.set_title(
                f"{known[name].title} by {AXIS[axis]}", loc="left", size=11, color=colours.INK
            )
            draw(axes, runs, known[name], axis)
    if len(runs) > 1:
        figure.legend(
            [_handle(index) for index in range(len(runs))],
            [one_line(run.name, 60).replace("$", r"\$") for run in runs],  # no formula
            loc="outside lower left", ncols=min(len(runs), 2 * len(what)), frameon=False,
            labelcolor=colours.INK, fontsize=10,
        )  # fmt: skip
    return figure


def inline(drawn: Callable[[Axes], object], prefix: str) -> str:
    """Returns a chart as SVG that stands inside of a page, with its colours as CSS variables.

    Args:
        drawn: draws the chart.
        prefix: what begins the names of its parts, which no other chart of the page has.
    """
    import matplotlib as mpl  # noqa: PLC0415 (slow to import)
    from matplotlib.figure import Figure  # noqa: PLC0415

    with mpl.rc_context(AS_TEXT):
        figure = Figure(figsize=SIZE, layout="constrained")
        figure.patch.set_visible(False)
        figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02)  # type: ignore[union-attr]
        axes = figure.subplots()
        axes.patch.set_visible(False)
        drawn(axes)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return _of_page(file.getvalue(), prefix)


def _of_page(text: str, prefix: str) -> str:
    """Returns what is left of a file of SVG inside of a page."""
    text = text[text.index("<svg") :].replace("xlink:href", "href")
    text = re.sub(r"<metadata>.*?</metadata>\s*|<style .*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r'(?:xmlns(?::xlink)?|version)="[^"]*"\s*', "", text)
    text = re.sub(r"^<svg [^>]*", lambda tag: re.sub(SIZED, "", tag[0]), text)
    used = {*re.findall(r'(?:href="#|url\(#)([\w-]+)', text)}
    text = re.sub(r' id="([\w-]+)"', lambda m: m[0] if m[1] in used else "", text)
    text = re.sub(r'((?: id="|href="#|url\(#))([\w-]+)', rf"\g<1>{prefix}\2", text)
    text = re.sub(r"font-family: [^;\"]*;?\s*", "", text)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    text = re.sub(r' transform="rotate\(-0 [^"]*"|<g/>|<defs>\s*</defs>', "", text)
    text = re.sub(r"<[^>]+>", lambda tag: FINE.sub(_rounded, tag[0]), text)
    for name, (light, _) in colours.VARIABLES.items():
        text = text.replace(light, f"var(--{name})")
    return re.sub(r"\n\s*", "\n", text).strip()


def _rounded(number: re.Match[str]) -> str:
    """Returns a number with two digits after the point."""
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")


def _handle(index: int) -> Any:
    """Returns a line that stands for a run in a legend."""
    from matplotlib.lines import Line2D  # noqa: PLC0415 (slow to import)

    style: Any = colours.style(index)
    return Line2D([], [], color=colours.series(index), linestyle=style, linewidth=2.0)
