"""KFRA's figure 1: the error of a two-layer ReLU network has no smooth local maxima."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

import newtriton as nt

from ..protocol.experiment import Experiment, Finding, Row, Setting
from ..protocol.figures import panels
from .kfra_autoencoders import of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INPUTS, HIDDEN, OUTPUTS, SAMPLES = 4, 8, 3, 20
FIRST = HIDDEN * INPUTS  # how many of the parameters are W₁
ACTIVATIONS = {"ReLU": nt.ReLU(), "max(0.1x, x)": nt.LeakyReLU(0.1), "tanh": nt.Tanh()}
PLANES = {"W₁ = xU + yV": (0, 0), "W₂ = xU + yV": (1, 1), "W₁ = xU, W₂ = yV": (0, 1)}
ROUNDING = 1e-10  # eigenvalues below this share of the largest are rounding


def network(activation: str) -> nt.Model:
    """Returns a network of two layers without biases, for the squared error."""
    first, last = (nt.Linear(width, bias=False) for width in (HIDDEN, OUTPUTS))
    net = nt.Sequential(first, ACTIVATIONS[activation], last)
    return nt.compile(net, (INPUTS,), nt.MSELoss(), dtype=torch.float64, device="cpu")


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    """Returns standard normal numbers in float64."""
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def measure(setting: Setting) -> list[Row]:
    """Looks at Hessians at random weights, and at planes through weights."""
    points = setting.of(smoke=3, default=50, full=1000)
    side = setting.of(smoke=11, default=41, full=101)
    rows = [
        {"activation": name, "seed": seed, "points": points, **hessians(name, points, seed)}
        for name in ACTIVATIONS
        for seed in setting.seeds
    ]
    return rows + [surface(plane, side, setting.seeds[0]) for plane in PLANES]


def hessians(activation: str, points: int, seed: int) -> Row:
    """Returns how often blocks of the Hessian, or its trace, are not what the lemmas say."""
    model, generator = network(activation), torch.Generator().manual_seed(seed)
    units = torch.eye(model.params.numel(), dtype=torch.float64)
    lowest, traces, whole = list[float](), list[float](), list[float]()
    for _ in range(points):
        x, y = normal(generator, SAMPLES, INPUTS), normal(generator, SAMPLES, OUTPUTS)
        model.params.copy_(normal(generator, len(units)))
        lin = model.linearize(x, y)
        hessian = torch.stack([lin.hvp(unit) for unit in units])
        lowest.append(min(least(hessian[:FIRST, :FIRST]), least(hessian[FIRST:, FIRST:])))
        traces.append(float(hessian.trace()))
        whole.append(least(hessian))
    return {
        "indefinite_blocks": sum(value < -ROUNDING for value in lowest),
        "negative_traces": sum(value < 0.0 for value in traces),
        "indefinite": sum(value < -ROUNDING for value in whole),
    }


def least(matrix: Tensor) -> float:
    """Returns the lowest eigenvalue as a share of the largest absolute one."""
    values = torch.linalg.eigvalsh((matrix + matrix.mT) / 2)
    return float(values[0] / values.abs().max())


def surface(plane: str, side: int, seed: int) -> Row:
    """Returns the error on a plane of one layer's weights, or of both, and its maxima."""
    model, generator = network("ReLU"), torch.Generator().manual_seed(seed)
    x, y = normal(generator, SAMPLES, INPUTS), normal(generator, SAMPLES, OUTPUTS)
    start, axes = normal(generator, len(model.params)), list[Tensor]()
    for layer in PLANES[plane]:
        place = (slice(0, FIRST), slice(FIRST, None))[layer]
        start[place] = 0.0
        axes.append(torch.zeros_like(start))
        axes[-1][place] = normal(generator, *start[place].shape)
    ticks, heights = np.linspace(-2.0, 2.0, side), np.empty((side, side))
    for (i, j), _ in np.ndenumerate(heights):
        model.params.copy_(start + float(ticks[j]) * axes[0] + float(ticks[i]) * axes[1])
        heights[i, j] = float(model.loss(x, y))
    return {"plane": plane, "heights": heights.tolist(), "maxima": maxima(heights)}


def maxima(heights: np.ndarray) -> int:
    """Returns how many inner points of a grid are above all of their eight neighbours."""
    rows, columns = heights.shape
    around = [
        heights[1 + i : rows - 1 + i, 1 + j : columns - 1 + j]
        for i in (-1, 0, 1)
        for j in (-1, 0, 1)
        if (i, j) != (0, 0)
    ]
    return int(np.all([heights[1:-1, 1:-1] > other for other in around], axis=0).sum())


def figure(rows: list[Row]) -> Figure:
    """Draws figure 1: the error on planes of W₁, of W₂ and of both."""
    planes = [row for row in rows if "plane" in row]
    made, axes = panels(1, len(planes))
    for at, row in zip(axes[0], planes, strict=True):
        ticks = np.linspace(-2.0, 2.0, len(row["heights"]))
        drawn = at.contourf(ticks, ticks, np.array(row["heights"], dtype=float), levels=25)
        made.colorbar(drawn, ax=at)
        at.set(title=row["plane"], xlabel="x", ylabel="y")
    return made


def _counts(rows: Sequence[Row], field: str) -> str:
    """Returns how often something was seen, by activation."""
    told: list[str] = []
    for name in ACTIVATIONS:
        found = of([row for row in rows if "activation" in row], activation=name)
        told.append(f"{name} {sum(r[field] for r in found)} of {sum(r['points'] for r in found)}")
    return ", ".join(told)


def findings(rows: list[Row]) -> list[Finding]:
    """Returns the claims of section 2.2.3 and appendix E beside the rows."""
    linear = [row for row in rows if row.get("activation", "tanh") != "tanh"]
    blocks, traces = (
        sum(row[field] for row in linear) for field in ("indefinite_blocks", "negative_traces")
    )
    planes = [row for row in rows if "plane" in row]
    seen = ", ".join(f"{row['plane']}: {row['maxima']}" for row in planes)
    negative = _counts(rows, "negative_traces")
    return [
        Finding(
            "With piecewise linear activations the error is locally convex in the weights of a "
            "layer, wherever it is differentiable (lemma 1).",
            f"random weights where a layer's block of the Hessian is indefinite: "
            f"{_counts(rows, 'indefinite_blocks')}; where the whole Hessian is: "
            f"{_counts(rows, 'indefinite')}.",
            "contradicts" if blocks else "agrees",
            "blocks and Hessians are explicit ones in float64. Tanh has a second derivative, and "
            "is there to show that the count can be otherwise.",
        ),
        Finding(
            "Then there are no differentiable strict local maxima (lemma 2), and figure 1's "
            "surfaces have none.",
            f"a negative trace of the Hessian, which a maximum has: {negative}; points of a grid "
            f"above all their neighbours: {seen}.",
            "contradicts" if traces else "agrees",
            "the trace is the sum of the blocks' traces. A maximum of a grid would be a kink, "
            "which the lemma allows.",
        ),
    ]


MAXIMA = Experiment(
    "Has the error of a network with piecewise linear activations smooth local maxima?",
    "Section 2.2.3, appendix E, figure 1",
    measure,
    figure,
    findings,
)
