"""The Gram matrix of convolution patches without im2col.

Block (δ, ε) of Σ p pᵀ, for taps δ and ε, is a sum of a(q) a(q + ε − δ)ᵀ over those positions q that
the tap δ visits and for which both positions lie in the image. For a given lag ε − δ (and phase of
δ under a stride) these sets differ between taps only at the border. So each lag's range of q is cut
into rectangles, at most 3×3 for a 3×3 kernel; one product per rectangle; every block is a sum of
rectangle products. Nothing is computed twice, nothing is subtracted, and no patch is ever written.

A rectangle is not dense in memory, but each of its rows is. Of few channels, C ≤ 64, the products
of the rows are taken where they lie, and summed: H·C² numbers, no more than the pixels that are
read as C ≤ W·N. Of more channels rectangles are copied, for faster products.

Where a product is short beside its call, the rows of patches are written: kw·C numbers a position,
the channels of an image whose taps lie along the other axis alone. That is up to kw/2 times the
arithmetic, in a few calls: a 5×5 kernel without padding has 881 rectangles, and 25 of rows. Patches
that share no pixel, as those of kernels no longer than the stride, are no more numbers than the
image: they are written whole.

Images are N×H×W×C; results are in (tap, channel) order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor

from .gram import gram
from .memory import empty
from .products import is_large, times_transposed

NARROW = 64  # channels of which copies of rectangles would take longer than their products

CALL = 1_500_000  # multiplications that take as long as a rectangle of few channels and pixels

Pair = tuple[int, int]


@dataclass(frozen=True)
class Axis:
    """One axis at one lag and phase.

    Attributes:
        lag: the distance between the positions of the two taps.
        segments: disjoint ranges of q, cut so that every tap's range is some of them in a row.
        taps: for each pair of taps: (δ, ε, first segment, last segment + 1).
    """

    lag: int
    segments: tuple[range, ...]
    taps: tuple[tuple[int, int, int, int], ...]


def windows(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """Returns the number of patches along one axis."""
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


@lru_cache(maxsize=1024)
def axes_of(size: int, kernel: int, stride: int, padding: int, dilation: int) -> tuple[Axis, ...]:
    """Returns all lags and phases along one axis that have anything to sum."""
    count = windows(size, kernel, stride, padding, dilation)
    ranges: dict[Pair, dict[Pair, range]] = {}
    for tap in range(kernel):
        first = dilation * tap - padding
        for other in range(kernel):
            lag = dilation * (other - tap)
            visited = range(first, first + stride * count, stride)
            inside = [q for q in visited if 0 <= q < size and 0 <= q + lag < size]
            if inside:
                key = (lag, first % stride)
                ranges.setdefault(key, {})[tap, other] = range(
                    inside[0], inside[-1] + stride, stride
                )
    return tuple(_cut(lag, stride, taps) for (lag, _), taps in ranges.items())


def _cut(lag: int, stride: int, ranges: dict[Pair, range]) -> Axis:
    edges = sorted({edge for r in ranges.values() for edge in (r.start, r.stop)})
    segments = [
        range(a, b, stride)
        for a, b in pairwise(edges)
        if any(r.start <= a and b <= r.stop for r in ranges.values())  # no gap between two ranges
    ]
    starts, stops = [s.start for s in segments], [s.stop for s in segments]
    taps = tuple(
        (*pair, starts.index(r.start), stops.index(r.stop) + 1) for pair, r in ranges.items()
    )
    return Axis(lag, tuple(segments), taps)


@dataclass(frozen=True)
class Lag:
    """Both axes at one lag: rectangles `y.segments` × `x.segments`, and the blocks they sum to.

    Attributes:
        y: the axis of the rows of an image.
        x: the axis of its columns.
    """

    y: Axis
    x: Axis

    def blocks(self, width: int) -> Iterator[tuple[int, int, slice, slice]]:
        """Yields (tap, other tap, segments of y, segments of x); taps are numbered row by row."""
        for i, j, y0, y1 in self.y.taps:
            for k, m, x0, x1 in self.x.taps:
                yield i * width + k, j * width + m, slice(y0, y1), slice(x0, x1)


@lru_cache(maxsize=1024)
def lags_of(
    size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> tuple[Lag, ...]:
    """Returns the lags up to sign, since block (ε, δ) is the transpose of block (δ, ε)."""
    ys, xs = (axes_of(*a) for a in zip(size, kernel, stride, padding, dilation, strict=True))
    return tuple(Lag(y, x) for y in ys for x in xs if y.lag > 0 or (y.lag == 0 and x.lag >= 0))


def multiplications(lags: tuple[Lag, ...]) -> int:
    """Returns the number of products of pixels that are summed, per sample and pair of channels."""
    return sum(sum(map(len, lag.y.segments)) * sum(map(len, lag.x.segments)) for lag in lags)


def rectangles(lags: tuple[Lag, ...]) -> int:
    """Returns the number of rectangles of all lags."""
    return sum(len(lag.y.segments) * len(lag.x.segments) for lag in lags)


def patch_gram(
    a: Tensor,
    kernel: Pair,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
    homogeneous: bool = False,
    scale: float = 1.0,
    out: Tensor | None = None,
) -> Tensor:
    """Returns scale · Σ p pᵀ over all patches p of images, a final 1 in p if `homogeneous`.

    Args:
        a: the images, N×H×W×C.
        kernel: the taps along both axes.
        stride: the step between patches.
        padding: the zeros around an image.
        dilation: the step between taps.
        groups: the number of groups of channels; each has a Gram of its own.
        homogeneous: whether patches end in a 1.
        scale: a factor of the result.
        out: where to write, of the result's shape.

    Returns:
        the Gram matrix, D×D with D = kh·kw·C/groups (+ 1), rows in (tap, channel) order; for
        several groups groups×D×D.
    """
    batch, height, width, channels = a.shape
    taps, c = math.prod(kernel), channels // groups
    d = taps * c + homogeneous
    result = empty((groups, d, d), a.dtype, a.device) if out is None else out.view(groups, d, d)
    blocks = result[:, : taps * c, : taps * c].unflatten(1, (taps, c)).unflatten(3, (taps, c))
    found = result[0] if groups == 1 else result
    apart = all(count <= step for count, step in zip(kernel, stride, strict=True))
    if apart and padding == (0, 0) and dilation == (1, 1):
        rows = _disjoint(a, kernel, stride, groups)
        gram(rows[0] if groups == 1 else rows, homogeneous, scale, found)
        return found if out is None else out
    lags = lags_of((height, width), kernel, stride, padding, dilation)
    if groups == 1 and kernel[1] > 1:
        down = (kernel[0], 1), (stride[0], 1), (padding[0], 0), (dilation[0], 1)
        places = windows(width, kernel[1], stride[1], padding[1], dilation[1])
        of_rows = lags_of((height, places), *down)
        more = multiplications(of_rows) * (kernel[1] * c) ** 2 - multiplications(lags) * c**2
        if batch * more <= CALL * (rectangles(lags) - rectangles(of_rows)):
            rows = _rows_of_patches(a, kernel[1], stride[1], padding[1], dilation[1])
            patch_gram(rows, *down, 1, homogeneous, scale, result)
            return found if out is None else out
    if sum(len(lag.y.taps) * len(lag.x.taps) for lag in lags) < taps * (taps + 1) // 2:
        result.zero_()  # taps that never meet inside the image
    image = a.permute(1, 2, 0, 3).contiguous()
    most = max((rectangles((lag,)) for lag in lags), default=0)
    spare = a.new_empty(most * groups * c * c)
    for lag in lags:
        down_across = len(lag.y.segments), len(lag.x.segments)
        products = spare[: rectangles((lag,)) * groups * c * c].view(*down_across, groups, c, c)
        for i, y in enumerate(lag.y.segments):
            for j, x in enumerate(lag.x.segments):
                here = _rectangle(image, y, x)
                there = _rectangle(image, _shifted(y, lag.y.lag), _shifted(x, lag.x.lag))
                _product(here, there, scale, products[i, j])
        for tap, other, ys, xs in lag.blocks(kernel[1]):
            block = blocks[:, tap, :, other]
            _sum([p for row in products[ys] for p in row[xs]], block)
            if other != tap:
                blocks[:, other, :, tap].copy_(block.mT)
    if homogeneous:
        _append_ones(result, image, lags, kernel, stride, padding, dilation, scale)
    return found if out is None else out


def _disjoint(a: Tensor, kernel: Pair, stride: Pair, groups: int) -> Tensor:
    """Returns patches that share no pixel as rows, groups×patches×(taps·C/groups)."""
    patches = a.unfold(1, kernel[0], stride[0]).unfold(2, kernel[1], stride[1])
    patches = patches.unflatten(3, (groups, -1)).permute(3, 0, 1, 2, 5, 6, 4)
    return patches.reshape(groups, math.prod(patches.shape[1:4]), -1)


def _rows_of_patches(a: Tensor, taps: int, stride: int, padding: int, dilation: int) -> Tensor:
    """Returns the image of rows of patches, N×H×W'×(taps·C), which lies as H×W'×N×(taps·C)."""
    padded = torch.nn.functional.pad(a, (0, 0, padding, padding))
    rows = padded.unfold(2, dilation * (taps - 1) + 1, stride)[..., ::dilation]
    return rows.permute(1, 2, 0, 4, 3).flatten(3).permute(2, 0, 1, 3)


def _product(here: Tensor, there: Tensor, scale: float, out: Tensor) -> None:
    """Writes scale · hereᵀ there of each group to `out`, for rectangles of pixels."""
    groups, (_, columns, batch, channels) = len(out), here.shape
    if groups == 1 and channels <= min(NARROW, columns * batch):
        by_row = torch.bmm(here.flatten(1, 2).mT, there.flatten(1, 2))
        torch.sum(by_row, 0, keepdim=True, out=out).mul_(scale)
        return
    here, there = _by_group(here, groups), _by_group(there, groups)
    if groups == 1 and is_large(here[0].mT, there[0].mT):
        torch.mul(times_transposed(here[0].mT, there[0].mT), scale, out=out[0])
    else:
        torch.baddbmm(out, here.mT, there, beta=0, alpha=scale, out=out)


def _sum(terms: Sequence[Tensor], out: Tensor) -> None:
    """Writes Σ terms to `out`, without clearing it first as torch.sum does."""
    if len(terms) == 1:
        out.copy_(terms[0])
        return
    torch.add(terms[0], terms[1], out=out)
    for term in terms[2:]:
        out.add_(term)


def _shifted(r: range, by: int) -> range:
    return range(r.start + by, r.stop + by, r.step)


def _rectangle(image: Tensor, y: range, x: range) -> Tensor:
    """Returns a rectangle of the H×W×N×C image."""
    return image[y.start : y.stop : y.step, x.start : x.stop : x.step]


def _by_group(rectangle: Tensor, groups: int) -> Tensor:
    """Returns its pixels as rows: groups×(pixels·N)×C/groups."""
    return rectangle.reshape(-1, groups, rectangle.shape[-1] // groups).transpose(0, 1)


def _append_ones(
    result: Tensor, image: Tensor, lags: tuple[Lag, ...], kernel: Pair, stride: Pair, padding: Pair,
    dilation: Pair, scale: float,
) -> None:  # fmt: skip
    """Writes the last row and column, sums of pixels; the corner is the number of patches."""
    height, width, batch, channels = image.shape
    groups = len(result)
    sums = image.sum(2).mul_(scale).view(height, width, groups, -1)
    for lag in lags:
        if lag.y.lag == lag.x.lag == 0:
            for i, _, y0, y1 in lag.y.taps:
                rows = sums[_span(lag.y, y0, y1)].sum(0)
                for k, _, x0, x1 in lag.x.taps:
                    c = channels // groups
                    start = (i * kernel[1] + k) * c
                    result[:, -1, start : start + c] = rows[_span(lag.x, x0, x1)].sum(0)
    result[:, :-1, -1] = result[:, -1, :-1]
    window = zip((height, width), kernel, stride, padding, dilation, strict=True)
    result[:, -1, -1].fill_(scale * batch * math.prod(windows(*along) for along in window))


def _span(axis: Axis, first: int, stop: int) -> slice:
    """Returns the positions of consecutive segments."""
    segments = axis.segments[first:stop]
    return slice(segments[0].start, segments[-1].stop, segments[0].step)


def patch_gram_reference(
    a: Tensor,
    kernel: Pair,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
    homogeneous: bool = False,
    scale: float = 1.0,
) -> Tensor:
    """Returns the same by im2col and one matrix product: the oracle."""
    batch, _, _, channels = a.shape
    patches = torch.nn.functional.unfold(
        a.permute(0, 3, 1, 2), kernel, dilation=dilation, padding=padding, stride=stride
    )
    taps, count = math.prod(kernel), patches.shape[-1]
    rows = patches.view(batch, groups, channels // groups, taps, count).permute(1, 0, 4, 3, 2)
    rows = rows.reshape(groups, batch * count, -1)
    if homogeneous:
        rows = torch.cat([rows, rows.new_ones(groups, batch * count, 1)], -1)
    result = scale * rows.mT @ rows
    return result[0] if groups == 1 else result
