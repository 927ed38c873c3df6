"""Sums over pixels of outer products: weight gradients, transposed matrix products, Grams.

    out[o, (tap, c)] = Σ_q Σ_pixels  G_q[pixel, o] · X_q[pixel shifted by tap, c]

The contracted axis is long and the result small, so the pixels are split over instances; parts are
added later in a fixed order, never by atomics: two runs are bitwise equal. A Gram is the sum with
G = X, where channel C, if asked for, is a constant 1.
"""

# pyright: reportGeneralTypeIssues=false, reportAssignmentType=false

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .contraction import Pair, Tiles, finish, pair, window


@triton.jit(do_not_specialize=["batch", "pixels", "trips"])
def outer(
    gs, xs, p, batch, pixels, trips, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr,
    OH: tl.constexpr, OW: tl.constexpr, OC: tl.constexpr, GROUPS: tl.constexpr, KH: tl.constexpr,
    KW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr,
    DH: tl.constexpr, DW: tl.constexpr, ONES: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    BK: tl.constexpr, PREC: tl.constexpr, STRIPS: tl.constexpr, SPLIT: tl.constexpr,
    STAGES: tl.constexpr, RATIOS: tl.constexpr,
):  # fmt: skip
    """Computes one tile of one part of the sum.

    H, W and C are height, width and channels per group of the images, OH, OW and OC those of G.
    """
    ROWS: tl.constexpr = OC + 1 if ONES else OC
    COLUMNS: tl.constexpr = KH * KW * C + 1 if ONES else KH * KW * C
    down: tl.constexpr = (ROWS + BM - 1) // BM
    across: tl.constexpr = (COLUMNS + BN - 1) // BN
    pid = tl.program_id(0)
    split = pid // (GROUPS * down * across)
    group = pid // (down * across) % GROUPS
    i = pid // across % down
    j = pid % across
    o = i * BM + tl.arange(0, BM)
    n = j * BN + tl.arange(0, BN)
    if C % BN == 0:  # one tap per tile: its shift is a number
        tap = (j * BN) // C
        h_shift = tap // KW * DH - PH
        w_shift = tap % KW * DW - PW
        c = (n - tap * C)[None, :]
    else:
        tap = n // C
        h_shift = (tap // KW * DH - PH)[None, :]
        w_shift = (tap % KW * DW - PW)[None, :]
        c = (n % C)[None, :]
    part = (trips + SPLIT - 1) // SPLIT
    acc = tl.zeros((BM, BN), tl.float32)
    for q in tl.static_range(len(gs)):
        for trip in range(split * part, tl.minimum(split * part + part, trips)):
            k = trip * BK + tl.arange(0, BK)
            real = k < pixels
            a = tl.load(
                gs[q] + (k * (OC * GROUPS) + group * OC)[None, :] + o[:, None],
                mask=real[None, :] & (o < OC)[:, None],
                other=0.0,
            )
            h = (k // OW % OH * SH)[:, None] + h_shift
            w = (k % OW * SW)[:, None] + w_shift
            image = (k // (OH * OW) * (H * W * C * GROUPS) + group * C)[:, None]
            ok = real[:, None] & (n < KH * KW * C)[None, :]
            if KH * KW > 1 or PH + PW > 0:
                # negative numbers are large ones without their sign
                ok = ok & (h.to(tl.uint32) < H) & (w.to(tl.uint32) < W)
            b = tl.load(xs[q] + (image + (h * W + w) * (C * GROUPS) + c), mask=ok, other=0.0)
            if ONES:
                a = tl.where((o == OC)[:, None] & real[None, :], 1.0, a)
                b = tl.where((n == C)[None, :] & real[:, None], 1.0, b)
            acc = tl.dot(a, b, acc, input_precision=PREC)
        if STAGES[q] is not None:
            finish(
                acc, group * down + i, j * STRIPS, split, group * ROWS + o, j * BN,
                (o < ROWS)[:, None], COLUMNS, p, batch, BM, BN, STRIPS, STAGES[q],
            )  # fmt: skip
        if RATIOS[q] is not None:
            acc *= RATIOS[q](p, batch)


@dataclass(frozen=True)
class OuterGeometry:
    """The shapes of a sum of outer products.

    Attributes:
        size: height and width of the images X.
        channels: the channels of a group of X.
        grid: height and width of G, whose pixels are summed.
        outputs: the channels of a group of G.
        groups: the number of groups.
        kernel: the taps along both axes.
        stride: the step of the convolution.
        padding: the zeros around an image.
        dilation: the step between taps.
        ones: whether both operands end in a constant channel 1.
    """

    size: Pair
    channels: int
    grid: Pair
    outputs: int
    groups: int = 1
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    ones: bool = False

    @property
    def shape(self) -> Pair:
        """Rows and columns of the result of a group."""
        return (
            self.outputs + self.ones,
            self.kernel[0] * self.kernel[1] * self.channels + self.ones,
        )

    def constants(self) -> dict[str, Any]:
        """Returns the constexpr arguments of the kernel."""
        return {
            **pair("H", "W", self.size),
            **pair("OH", "OW", self.grid),
            **window(self),
            "C": self.channels,
            "OC": self.outputs,
            "GROUPS": self.groups,
            "ONES": self.ones,
        }

    def instances(self, tiles: Tiles) -> int:
        """Returns the number of program instances of a launch."""
        rows, columns = self.shape
        return self.groups * -(-rows // tiles.bm) * -(-columns // tiles.bn) * tiles.split


def outer_reference(g: Tensor, x: Tensor, geometry: OuterGeometry) -> Tensor:
    """Returns (groups·rows) × columns of one term, from N×OH×OW×O and N×H×W×C: the oracle."""
    s = geometry
    patches = torch.nn.functional.unfold(
        x.permute(0, 3, 1, 2), s.kernel, s.dilation, s.padding, s.stride
    )
    apart = patches.unflatten(1, (s.groups, s.channels, -1)).permute(1, 0, 4, 3, 2)
    columns = apart.reshape(s.groups, -1, s.kernel[0] * s.kernel[1] * s.channels)
    rows = g.reshape(-1, s.groups, s.outputs).transpose(0, 1)
    if s.ones:
        one = rows.new_ones(*rows.shape[:2], 1)
        rows, columns = torch.cat([rows, one], -1), torch.cat([columns, one], -1)
    return (rows.mT @ columns).flatten(0, 1)
