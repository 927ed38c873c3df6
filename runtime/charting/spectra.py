"""Charts of spectra: densities of eigenvalues, on a logarithmic axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from . import colours
from .axes import finish
from .saving import charts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MATRICES = {"hessian": "Hessian", "ggn": "Gauss–Newton matrix"}
POINTS = 480  # of a curve
LIGHTEST = 1e-10  # the weight of a node that is shown


class Spectrum(Protocol):
    """What is drawn of a spectrum, such as a `Density`."""

    @property
    def matrix(self) -> str:
        """Whose eigenvalues it is of, of `MATRICES`."""
        ...

    @property
    def weights(self) -> Tensor:
        """The weights of its nodes."""
        ...

    @property
    def width(self) -> float:
        """The standard deviation of a node's Gaussian."""
        ...

    def grid(self, points: int) -> Tensor:
        """Returns points at which to look at it."""
        ...

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the density at points, and its standard error."""
        ...


def title(matrix: str) -> str:
    """Returns what a chart of a matrix's spectra is called."""
    return f"Density of the eigenvalues of the {MATRICES[matrix]}"


def draw_spectra(axes: Axes, spectra: Sequence[Spectrum | None]) -> None:
    """Draws densities of spectra, down to what the least of their nodes weighs.

    Args:
        axes: where they are drawn.
        spectra: the densities, each in the colour of its place; None where there is none.
    """
    highest, lowest = 0.0, math.inf
    for index, spectrum in enumerate(spectra):
        if spectrum is None:
            continue
        grid = spectrum.grid(POINTS)
        density = spectrum(grid)[0].numpy()
        highest = max(highest, float(density.max()))
        weights = spectrum.weights[spectrum.weights > LIGHTEST]
        lowest = min(lowest, 0.1 * float(weights.min()) / spectrum.width)
        color, style = colours.series(index), colours.style(index)
        axes.plot(grid.numpy(), density, color=color, linestyle=style, linewidth=1.4)
    axes.set_yscale("log", nonpositive="clip")
    axes.set_ylim(min(lowest, 0.1 * highest), 2 * highest)
    finish(axes, "eigenvalue", is_log=True)


def picture(spectra: Sequence[Spectrum]) -> Figure:
    """Returns a picture with a chart beside the other for each spectrum."""
    figure, axes = charts(1, len(spectra))
    for ax, spectrum in zip(axes[0], spectra, strict=True):
        ax.set_title(title(spectrum.matrix), loc="left", size=11, color=colours.INK)
        draw_spectra(ax, [spectrum])
    return figure
