"""Charts of spectra show densities as they are, each in the colour of its place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from matplotlib.figure import Figure

from newtriton.runtime.charting import colours
from newtriton.runtime.charting.spectra import draw_spectra, picture, title
from newtriton.runtime.diagnostics.densities import Density

NODES, WEIGHTS = torch.tensor([[0.0, 10.0]]).double(), torch.tensor([[0.9, 0.1]]).double()
FOUND = Density(NODES, WEIGHTS, 0.1, 2, True)


def test_a_spectrum_is_its_density() -> None:
    axes = Figure().subplots()
    draw_spectra(axes, [None, FOUND])
    (line,) = axes.get_lines()
    x = torch.as_tensor(line.get_xdata())
    assert np.array_equal(line.get_ydata(), FOUND(x)[0].numpy())
    assert line.get_color() == colours.series(1)
    low, high = axes.get_ylim()
    assert low < 0.1 / 0.1 and float(FOUND(x)[0].max()) < high


def test_a_picture_has_a_chart_for_each_spectrum() -> None:
    figure = picture([FOUND, replace(FOUND, matrix="ggn")])
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == [title("hessian"), title("ggn")]
    assert titles[1] == "Density of the eigenvalues of the Gauss–Newton matrix"
