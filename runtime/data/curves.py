"""CURVES: simulated hand-drawn curves, after Hinton & Salakhutdinov (2006)."""

from __future__ import annotations

import math

import numpy as np
import torch

from ...compiler.graph.calls import checked
from ...compiler.graph.options import check_count, check_seed
from .samples import Samples

SIZE = 28
MARGIN = 3.5  # a parabola leaves the box of its points by an eighth at most
PEN = 0.7  # standard deviation of the stroke, in pixels
TIMES = 64  # points that stand for the curve: less than a pixel apart


@checked
def curves(count: int = 20000, seed: int = 0) -> Samples:
    """Draws images of smooth curves through three random points, for autoencoders.

    p(t) is the parabola through the points at t = 0, ½, 1, which are uniform in the middle of the
    plane. A pixel at q is 1 − exp(−2κ), where κ = (√(2π)σ)⁻¹ ∫ exp(−‖q − p(t)‖²/2σ²) ‖p′(t)‖ dt is
    what a Gaussian pen leaves there (after Hinton & Salakhutdinov 2006).

    Args:
        count: the number of images; the papers have 20,000.
        seed: the seed of the points; the same seed gives the same images.

    Returns:
        the inputs x, (count, 784) float32 in [0, 1], and the labels y, which are the same tensor.

    Raises:
        NewtritonError: `count` is no positive integer.

    Examples:
        >>> import newtriton as nt
        >>> x, y = nt.curves(10)
        >>> tuple(x.shape), y is x, bool((x.min() >= 0) & (x.max() <= 1))
        ((10, 784), True, True)
    """
    count = check_count("count", count)
    generator = np.random.default_rng(check_seed(seed))
    points = generator.uniform(MARGIN, SIZE - MARGIN, (count, 3, 2))
    start, middle, end = torch.from_numpy(points).float().unsqueeze(2).unbind(1)
    t = ((torch.arange(TIMES, device="cpu") + 0.5) / TIMES).unsqueeze(-1)
    slope, bend = 4 * middle - 3 * start - end, 2 * (start - 2 * middle + end)
    at = start + t * (slope + t * bend)  # count × times × (row, column)
    speed = (slope + 2 * t * bend).norm(dim=-1, keepdim=True)
    pixels = torch.arange(SIZE, device="cpu") + 0.5
    rows, columns = (torch.exp(-((pixels - at[..., i, None]) ** 2) / (2 * PEN**2)) for i in (0, 1))
    ink = (rows * speed).mT @ columns / (TIMES * math.sqrt(2 * math.pi) * PEN)
    x = (1 - torch.exp(-2 * ink)).reshape(count, SIZE * SIZE)
    return Samples(x, x)
