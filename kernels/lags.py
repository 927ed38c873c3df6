"""The patch Gram on a GPU: products of rectangles, then their sums (`patch_gram` has the idea).

Two launches: every rectangle of every lag, tile by tile, and the assembly of the D×D result. Behind
the products of a channel with all others lies the sum of its pixels, for the homogeneous row. It is
not a product with a column of ones, for which 64 channels would need a second tile.
"""

# pyright: reportGeneralTypeIssues=false, reportAssignmentType=false

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .contraction import Pair, Tiles
from .patch_gram import lags_of, windows


@triton.jit
def divide(k, by):
    """Returns k // by and k % by of numbers below 2¹⁶, without a division of integers for each.

    By half a unit the quotient keeps off whole numbers, further than float32 may err.
    """
    quotient = ((k.to(tl.float32) + 0.5) * (1.0 / by)).to(tl.int32)
    return quotient, k - quotient * by


@triton.jit(do_not_specialize=["batch"])
def rectangle_products(
    a, items, products, batch, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr,
    GROUPS: tl.constexpr, PITCH: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    BK: tl.constexpr, SPLIT: tl.constexpr, PREC: tl.constexpr,
):  # fmt: skip
    """Computes one tile of Σ a(q) a(q + lag)ᵀ over the pixels q of a rectangle, and Σ a(q).

    The sum goes to products[item, split, group]; an item is a rectangle of a lag.
    """
    across: tl.constexpr = (C + BN - 1) // BN
    down: tl.constexpr = (C + BM - 1) // BM
    pid = tl.program_id(0)
    item = pid // (SPLIT * GROUPS * down * across)
    split = pid // (GROUPS * down * across) % SPLIT
    group = pid // (down * across) % GROUPS
    i = pid // across % down * BM + tl.arange(0, BM)
    j = pid % across * BN + tl.arange(0, BN)
    y0 = tl.load(items + item * 8)
    ny = tl.load(items + item * 8 + 1)
    x0 = tl.load(items + item * 8 + 2)
    nx = tl.load(items + item * 8 + 3)
    ly = tl.load(items + item * 8 + 4)
    lx = tl.load(items + item * 8 + 5)
    sy = tl.load(items + item * 8 + 6)
    sx = tl.load(items + item * 8 + 7)
    pixels = batch * ny * nx
    part = (pixels + SPLIT * BK - 1) // (SPLIT * BK)
    shift = (ly * W + lx) * (C * GROUPS)
    acc = tl.zeros((BM, BN), tl.float32)
    sums = tl.zeros((BM, BK), tl.float32)
    for trip in range(split * part, split * part + part):
        real = trip * BK + tl.arange(0, BK) < pixels
        row = trip * BK // nx
        image = row // ny
        rows, x = divide(trip * BK % nx + tl.arange(0, BK), nx)
        images, y = divide(row % ny + rows, ny)
        y = y0 + y * sy
        x = x0 + x * sx
        pixel = (((image + images) * H + y) * W + x) * (C * GROUPS) + group * C
        u = tl.load(
            a + pixel[None, :] + i[:, None], mask=real[None, :] & (i < C)[:, None], other=0.0
        )
        v = tl.load(
            a + (pixel + shift)[:, None] + j[None, :],
            mask=real[:, None] & (j < C)[None, :],
            other=0.0,
        )
        acc = tl.dot(u, v, acc, input_precision=PREC)
        sums += u
    where = ((item * SPLIT + split) * GROUPS + group) * (C * PITCH)
    inside = (i < C)[:, None] & (j < C)[None, :]
    tl.store(products + where + i[:, None] * PITCH + j[None, :], acc, mask=inside)
    if pid % across == 0:
        tl.store(products + where + i * PITCH + C, tl.sum(sums, axis=1), mask=i < C)


@triton.jit
def assemble(
    products, pairs, terms, out, scale, patches, C: tl.constexpr, TAPS: tl.constexpr,
    GROUPS: tl.constexpr, PITCH: tl.constexpr, ONES: tl.constexpr, SPLIT: tl.constexpr,
    BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Computes one tile of the result: block (δ, ε) is the sum of its rectangles' products.

    Where the pair of taps is flipped, the products of block (ε, δ) are read transposed.
    """
    D: tl.constexpr = TAPS * C + ONES
    tiles: tl.constexpr = (D + BC - 1) // BC
    r = tl.program_id(0) // tiles * BR + tl.arange(0, BR)[:, None]
    n = tl.program_id(0) % tiles * BC + tl.arange(0, BC)[None, :]
    group = r // D
    m = r % D
    inside = (r < GROUPS * D) & (n < D)
    last_row = m == TAPS * C
    last_column = n == TAPS * C
    tap = tl.where(last_row, n // C, m // C)
    other = tl.where(last_column, m // C, n // C)
    known = inside & ~(last_row & last_column)
    pair = pairs + (tap * TAPS + other) * 3
    first = tl.load(pair, mask=known, other=0)
    count = tl.load(pair + 1, mask=known, other=0)
    flipped = tl.load(pair + 2, mask=known, other=0) != 0
    row = tl.where(last_row, n % C, m % C)
    column = tl.where(last_row | last_column, C, n % C)
    where = tl.where(flipped, column * PITCH + row, row * PITCH + column)
    total = tl.zeros((BR, BC), tl.float32)
    for t in range(tl.max(tl.max(count, axis=1), axis=0)):
        item = tl.load(terms + first + t, mask=known & (t < count), other=0)
        for split in range(SPLIT):
            part = ((item * SPLIT + split) * GROUPS + group) * (C * PITCH) + where
            total += tl.load(products + part, mask=known & (t < count), other=0.0)
    total = tl.where(last_row & last_column, patches, total)
    tl.store(out + r * D + n, total * scale, mask=inside)


@dataclass(frozen=True)
class PatchGeometry:
    """The shapes of a patch Gram.

    Attributes:
        size: height and width of the images.
        channels: the channels of a group.
        groups: the number of groups.
        kernel: the taps along both axes.
        stride: the step between patches.
        padding: the zeros around an image.
        dilation: the step between taps.
        ones: whether patches end in a 1.
    """

    size: Pair
    channels: int
    groups: int
    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    ones: bool

    @cached_property
    def tables(self) -> tuple[Tensor, Tensor, Tensor]:
        """The tables that both kernels read, of 32-bit integers.

        They are the rectangles of all lags, [rectangles, 8]; for each pair of taps its first term,
        its number of terms, and whether its block is transposed, [taps, taps, 3]; and the terms,
        which are numbers of rectangles.
        """
        taps, items, terms = math.prod(self.kernel), [], []
        pairs = torch.zeros(taps, taps, 3, dtype=torch.int32, device="cpu")
        for lag in lags_of(self.size, self.kernel, self.stride, self.padding, self.dilation):
            first, across = len(items), len(lag.x.segments)
            for y in lag.y.segments:
                for x in lag.x.segments:
                    items.append(
                        (y.start, len(y), x.start, len(x), lag.y.lag, lag.x.lag, y.step, x.step)
                    )
            for tap, other, ys, xs in lag.blocks(self.kernel[1]):
                summed = [
                    first + i * across + j
                    for i in range(ys.start, ys.stop)
                    for j in range(xs.start, xs.stop)
                ]
                pairs[other, tap] = pairs.new_tensor([len(terms), len(summed), 1])
                pairs[tap, other] = pairs.new_tensor([len(terms), len(summed), 0])
                terms += summed
        return (
            pairs.new_tensor(items).view(-1, 8),
            pairs,
            pairs.new_tensor(terms),
        )

    @property
    def pitch(self) -> int:
        """The length of a row of products: channels and a sum, rounded up to 16 bytes."""
        return -(-(self.channels + 1) // 4) * 4

    @property
    def dimension(self) -> int:
        """The number of rows of the result of a group."""
        return math.prod(self.kernel) * self.channels + self.ones

    @property
    def patches(self) -> int:
        """The number of patches of one image."""
        window = zip(self.size, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        return math.prod(windows(*along) for along in window)

    def scratch(self, split: int) -> int:
        """Returns the number of elements of all products."""
        return len(self.tables[0]) * split * self.groups * self.channels * self.pitch

    def instances(self, tiles: Tiles) -> int:
        """Returns the number of program instances of the first launch."""
        down, across = -(-self.channels // tiles.bm), -(-self.channels // tiles.bn)
        return len(self.tables[0]) * tiles.split * self.groups * down * across

    def constants(self) -> dict[str, Any]:
        """Returns the constexpr arguments of the first launch, without those of its tiles."""
        height, width = self.size
        return {
            "H": height, "W": width, "C": self.channels, "GROUPS": self.groups, "PITCH": self.pitch,
        }  # fmt: skip

    def assembly(self, split: int, shape: Pair) -> dict[str, Any]:
        """Returns the constexpr arguments of the second launch."""
        return {
            "C": self.channels, "TAPS": math.prod(self.kernel), "GROUPS": self.groups,
            "PITCH": self.pitch, "ONES": int(self.ones), "SPLIT": split, "BR": shape[0],
            "BC": shape[1],
        }  # fmt: skip
