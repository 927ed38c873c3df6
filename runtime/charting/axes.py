"""Axes in the style of reports: ticks, labels and grid lines, and how numbers stand there."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from . import colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def finish(
    axes: Axes, label: str, is_log: bool = False, percent: bool = False, whole: bool = False
) -> None:
    """Draws axes, ticks and grid lines in the style of reports; `whole` are the numbers of x."""
    from matplotlib.ticker import (  # noqa: PLC0415 (slow to import)
        FuncFormatter,
        LogLocator,
        MaxNLocator,
        NullFormatter,
        NullLocator,
    )

    axes.set_xlabel(label)
    if is_log:
        low, high = axes.get_ylim()
        decades = math.log10(high / low)
        subs = (1.0, 2.0, 5.0) if decades < 2.2 else (1.0,)
        axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=7))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_locator(
        MaxNLocator(6, steps=[1, 2, 2.5, 5, 10], integer=whole, min_n_ticks=1 if whole else 2)
    )
    axes.yaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{100 * value:.4g} %" if percent else number(value))
    )
    axes.xaxis.set_major_formatter(FuncFormatter(number))
    axes.tick_params(length=0, pad=4, labelsize=9, colors=colours.MUTED)
    axes.grid(axis="y", color=colours.GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(colours.MUTED)
        spine.set_linewidth(0.8)
    axes.xaxis.label.set(color=colours.MUTED, size=9)
    axes.margins(x=0.02)


def number(value: float, position: object = None) -> str:
    """Returns a number as an axis has it.

    Examples:
        >>> from newtriton.runtime.charting.axes import number
        >>> number(0.25), number(1e-7), number(3e8), number(-2.0)
        ('0.25', '10⁻⁷', '3·10⁸', '−2')
    """
    if value == 0.0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.6g}".replace("-", "−")
    digits, exponent = f"{value:.3e}".split("e")
    digits = digits.rstrip("0").rstrip(".")
    power = "10" + str(int(exponent)).translate(SUPERSCRIPTS)
    factor = {"1": "", "-1": "−"}.get(digits, digits.replace("-", "−") + "·")
    return factor + power
