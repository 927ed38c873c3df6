"""Sums of convolutions (or their input gradients, or matrix products) on one accumulator.

    out[m, n] = Σ_q Σ_taps Σ_c  X_q[pixel(m, tap), c] · W_q[n, tap, c]

Of stacks of matrices, out[b, m, n] = Σ_q Σ_c X_q[b, m, c] · W_q[b, n, c], a tile lies in one; an
operand of fewer matrices begins anew when they are used up.

Images are N×H×W×C; W lies K-contiguous, [columns, taps, channels of the group]: as it is for a
convolution, transposed by its producer for an input gradient. One rolled loop over taps and
channels, taps' validity in a bit mask made before it, counters advanced without branches: the form
that compiles to asynchronous 16-byte copies and pipelined tensor-core instructions. Images of few
channels, strided input gradients and large kernels take flattened (tap, channel) tiles instead.
"""

# pyright: reportGeneralTypeIssues=false, reportAssignmentType=false, reportArgumentType=false

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn.grad import conv2d_input

Pair = tuple[int, int]
MOST_BITS = 31  # taps whose validity fits an int32


@triton.jit
def _tap_bits(
    valid, h0, w0, H: tl.constexpr, W: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    DH: tl.constexpr, DW: tl.constexpr,
):  # fmt: skip
    """Returns a bit mask per row: bit kh·KW + kw says whether that tap lies in the image."""
    bits = valid.to(tl.int32) * 0
    for kh in tl.static_range(KH):
        for kw in tl.static_range(KW):
            h = h0 + kh * DH
            w = w0 + kw * DW
            ok = valid & (h >= 0) & (h < H) & (w >= 0) & (w < W)
            bits = bits | (ok.to(tl.int32) << (kh * KW + kw))
    return bits


@triton.jit
def _first(trip, C: tl.constexpr, KW: tl.constexpr, BK: tl.constexpr):
    """Returns the tap, its row and column, and the first channel of a turn of the loop."""
    TRIPS: tl.constexpr = (C + BK - 1) // BK
    tap = trip // TRIPS
    return tap, tap // KW, tap % KW, (trip % TRIPS) * BK


@triton.jit
def _masks(
    valid, inside, bits, tap, c, C: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    BK: tl.constexpr,
):  # fmt: skip
    """Returns which elements of both operands exist in a turn of the loop."""
    ok = valid[:, None] if KH * KW == 1 else (((bits >> tap) & 1) != 0)[:, None]
    w_ok = inside[None, :]
    if C % BK != 0:
        channels = c + tl.arange(0, BK) < C
        ok = ok & channels[None, :]
        w_ok = w_ok & channels[:, None]
    return ok, w_ok


@triton.jit
def _advance(tap, kh, kw, c, C: tl.constexpr, KW: tl.constexpr, BK: tl.constexpr):
    """Goes to the next tile of channels, after the last one to the next tap; never branches."""
    c += BK
    last = c >= C
    c = tl.where(last, 0, c)
    tap = tl.where(last, tap + 1, tap)
    kw = tl.where(last, kw + 1, kw)
    row = kw == KW
    kh = tl.where(row, kh + 1, kh)
    kw = tl.where(row, 0, kw)
    return tap, kh, kw, c


@triton.jit
def _rolled(
    acc, x, w, base, columns, valid, inside, bits, lo, hi, W: tl.constexpr, C: tl.constexpr,
    PITCH: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, DH: tl.constexpr, DW: tl.constexpr,
    BK: tl.constexpr, PREC: tl.constexpr,
):  # fmt: skip
    """Adds turns lo … hi of one loop over taps and channels; their number is known at run time."""
    k = tl.arange(0, BK)
    rows = base[:, None] + k[None, :]
    weights = columns[None, :] + k[:, None]
    tap, kh, kw, c = _first(lo, C, KW, BK)
    for _ in range(lo, hi):
        ok, w_ok = _masks(valid, inside, bits, tap, c, C, KH, KW, BK)
        a = tl.load(x + rows + ((kh * DH * W + kw * DW) * PITCH + c), mask=ok, other=0.0)
        b = tl.load(w + weights + (tap * C + c), mask=w_ok, other=0.0)
        acc = tl.dot(a, b, acc, input_precision=PREC)
        tap, kh, kw, c = _advance(tap, kh, kw, c, C, KW, BK)
    return acc


@triton.jit
def _together(
    q, r, s, x, y, w, v, base, columns, valid, inside, bits, lo, hi, W: tl.constexpr,
    C: tl.constexpr, PITCH: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, DH: tl.constexpr,
    DW: tl.constexpr, BK: tl.constexpr, PREC: tl.constexpr,
):  # fmt: skip
    """Adds x⋆v to q, and x⋆w + y⋆v to r + s; each operand is loaded once.

    There are three accumulators since products of one turn on one would wait for each other.
    """
    k = tl.arange(0, BK)
    rows = base[:, None] + k[None, :]
    weights = columns[None, :] + k[:, None]
    tap, kh, kw, c = _first(lo, C, KW, BK)
    for _ in range(lo, hi):
        ok, w_ok = _masks(valid, inside, bits, tap, c, C, KH, KW, BK)
        where = rows + ((kh * DH * W + kw * DW) * PITCH + c)
        there = weights + (tap * C + c)
        a = tl.load(x + where, mask=ok, other=0.0)
        b = tl.load(v + there, mask=w_ok, other=0.0)
        d = tl.load(w + there, mask=w_ok, other=0.0)
        e = tl.load(y + where, mask=ok, other=0.0)
        q = tl.dot(a, b, q, input_precision=PREC)
        r = tl.dot(a, d, r, input_precision=PREC)
        s = tl.dot(e, b, s, input_precision=PREC)
        tap, kh, kw, c = _advance(tap, kh, kw, c, C, KW, BK)
    return q, r + s


@triton.jit
def _flat(
    acc, x, w, image, h0, w0, columns, valid, inside, lo, hi, H: tl.constexpr, W: tl.constexpr,
    C: tl.constexpr, PITCH: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, DH: tl.constexpr,
    DW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, BK: tl.constexpr, PREC: tl.constexpr,
):  # fmt: skip
    """Adds the same over flattened (tap, channel); SH, SW divide a strided gradient's places."""
    for trip in range(lo, hi):
        k = trip * BK + tl.arange(0, BK)
        tap = k // C
        exists = k < KH * KW * C
        h = h0[:, None] + ((tap // KW) * DH)[None, :]
        v = w0[:, None] + ((tap % KW) * DW)[None, :]
        ok = valid[:, None] & exists[None, :] & (h >= 0) & (v >= 0)
        if SH * SW > 1:
            ok = ok & (h % SH == 0) & (v % SW == 0)
            h = h // SH
            v = v // SW
        ok = ok & (h < H) & (v < W)
        where = image[:, None] + (h * W + v) * PITCH + (k % C)[None, :]
        a = tl.load(x + where, mask=ok, other=0.0)
        w_ok = inside[None, :] & exists[:, None]
        b = tl.load(w + columns[None, :] + k[:, None], mask=w_ok, other=0.0)
        acc = tl.dot(a, b, acc, input_precision=PREC)
    return acc


@triton.jit
def halves(acc, BM: tl.constexpr, BN: tl.constexpr):
    """Returns the left and the right half of the columns of a tile."""
    return tl.split(tl.permute(tl.reshape(acc, (BM, 2, BN // 2)), (0, 2, 1)))


@triton.jit
def finish(
    acc, i, j, k, m, n, mr, limit, p, batch, BM: tl.constexpr, BN: tl.constexpr,
    STRIPS: tl.constexpr, SLOT: tl.constexpr,
):  # fmt: skip
    """Hands the accumulator to a slot in strips: a whole tile that loads another would spill."""
    if STRIPS == 1:
        SLOT(acc, i, j, k, m, n + tl.arange(0, BN), mr, (n + tl.arange(0, BN) < limit)[None, :],
             p, batch)  # fmt: skip
    else:
        left, right = halves(acc, BM, BN)
        H: tl.constexpr = BN // 2
        S: tl.constexpr = STRIPS // 2
        finish(left, i, j, k, m, n, mr, limit, p, batch, BM, H, S, SLOT)
        finish(right, i, j + S, k, m, n + H, mr, limit, p, batch, BM, H, S, SLOT)


@triton.jit
def _rows(i, rows, left, right, BM: tl.constexpr, RUN: tl.constexpr):
    """Returns the rows of tile i, which of them exist, where they lie in X, and the matrix of W."""
    m = i * BM + tl.arange(0, BM)
    valid = m < rows
    source = m
    matrix = 0
    if RUN:
        down: tl.constexpr = (RUN + BM - 1) // BM
        within = i % down * BM + tl.arange(0, BM)
        valid = within < RUN
        m = i // down * RUN + within
        source = i // down % left * RUN + within
        matrix = i // down % right
    return m, valid, source, matrix


@triton.jit(do_not_specialize=["batch", "rows", "trips", "left", "right"])
def contraction(
    xs, ws, p, batch, rows, trips, left, right, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr,
    RH: tl.constexpr, RW: tl.constexpr, COLUMNS: tl.constexpr, GROUPS: tl.constexpr,
    KH: tl.constexpr, KW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, PH: tl.constexpr,
    PW: tl.constexpr, DH: tl.constexpr, DW: tl.constexpr, BACKWARD: tl.constexpr,
    FLAT: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, PREC: tl.constexpr,
    STRIPS: tl.constexpr, SPLIT: tl.constexpr, STAGES: tl.constexpr, RATIOS: tl.constexpr,
    TOGETHER: tl.constexpr, RUN: tl.constexpr,
):  # fmt: skip
    """Computes one tile of the sum, or of one part of it.

    `xs` and `ws` are the operands of each term. STAGES[q] sees the accumulator after term q, and
    RATIOS[q] scales it afterwards. H, W and C are height, width and channels per group of an image,
    RH and RW the size of the grid of rows. TOGETHER says whether the three terms are x⋆v and
    x⋆w + y⋆v, in one loop. RUN is the number of rows of a matrix of stacks of `left` and `right`
    matrices, 0 where there are none.
    """
    tiles: tl.constexpr = (COLUMNS + BN - 1) // BN
    down: tl.constexpr = (RUN + BM - 1) // BM
    per_split = (rows // RUN * down if RUN else (rows + BM - 1) // BM) * (GROUPS * tiles)
    split = tl.program_id(0) // per_split
    pid = tl.program_id(0) % per_split
    i = pid // (GROUPS * tiles)
    group = pid % (GROUPS * tiles) // tiles
    tile = pid % tiles
    m, valid, source, matrix = _rows(i, rows, left, right, BM, RUN)
    local = tile * BN + tl.arange(0, BN)
    inside = local < COLUMNS
    columns = ((matrix + group) * COLUMNS + local) * (KH * KW * C)
    PITCH: tl.constexpr = C * GROUPS
    SIGN: tl.constexpr = -1 if BACKWARD else 1
    if BACKWARD:
        h0 = m // RW % RH + PH
        w0 = m % RW + PW
    else:
        h0 = m // RW % RH * SH - PH
        w0 = m % RW * SW - PW
    image = source // (RH * RW) * (H * W * PITCH) + group * C
    part = (trips + SPLIT - 1) // SPLIT
    lo = split * part
    hi = tl.minimum(lo + part, trips)
    acc = tl.zeros((BM, BN), tl.float32)
    for q in tl.static_range(len(xs)):
        if TOGETHER:
            if q == 0:
                bits = _tap_bits(valid, h0, w0, H, W, KH, KW, SIGN * DH, SIGN * DW)
                base = image + (h0 * W + w0) * PITCH
                acc, both = _together(
                    acc, acc, acc, xs[0], xs[2], ws[1], ws[0], base, columns, valid, inside, bits,
                    lo, hi, W, C, PITCH, KH, KW, SIGN * DH, SIGN * DW, BK, PREC,
                )  # fmt: skip
            else:
                acc = both
        elif FLAT:
            acc = _flat(
                acc, xs[q], ws[q], image, h0, w0, columns, valid, inside, lo, hi, H, W, C, PITCH,
                KH, KW, SIGN * DH, SIGN * DW, SH if BACKWARD else 1, SW if BACKWARD else 1, BK,
                PREC,
            )  # fmt: skip
        else:
            bits = _tap_bits(valid, h0, w0, H, W, KH, KW, SIGN * DH, SIGN * DW)
            base = image + (h0 * W + w0) * PITCH
            acc = _rolled(
                acc, xs[q], ws[q], base, columns, valid, inside, bits, lo, hi, W, C, PITCH, KH, KW,
                SIGN * DH, SIGN * DW, BK, PREC,
            )  # fmt: skip
        if STAGES[q] is not None:
            finish(
                acc, i, (group * tiles + tile) * STRIPS, split, m, group * COLUMNS + tile * BN,
                valid[:, None], (group + 1) * COLUMNS, p, batch, BM, BN, STRIPS, STAGES[q],
            )  # fmt: skip
        if RATIOS[q] is not None:
            acc *= RATIOS[q](p, batch)


@dataclass(frozen=True)
class Geometry:
    """The shapes of a contraction.

    Attributes:
        size: height and width of the images that are read.
        channels: the channels of a group of these images.
        grid: height and width of the images that are written, one row of the result per pixel.
        columns: the columns of a group.
        groups: the number of groups.
        kernel: the taps along both axes.
        stride: the step of the convolution.
        padding: the zeros around an image.
        dilation: the step between taps.
        backward: whether this is an input gradient, whose images are adjoints.
        run: the rows of a matrix of the result where stacks of them are multiplied, 0 elsewhere.
    """

    size: Pair
    channels: int
    grid: Pair
    columns: int
    groups: int = 1
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    backward: bool = False
    run: int = 0

    @property
    def taps(self) -> int:
        """The number of positions of the kernel."""
        return self.kernel[0] * self.kernel[1]

    @property
    def flat(self) -> bool:
        """Whether the loop runs over flattened (tap, channel)."""
        strided = self.backward and self.stride != (1, 1)
        return self.channels < 16 or strided or self.taps > MOST_BITS

    def constants(self) -> dict[str, Any]:
        """Returns the constexpr arguments of the kernel."""
        return {
            **pair("H", "W", self.size),
            **pair("RH", "RW", self.grid),
            **window(self),
            "C": self.channels,
            "COLUMNS": self.columns,
            "GROUPS": self.groups,
            "BACKWARD": self.backward,
            "FLAT": self.flat,
            "RUN": self.run,
        }

    def trips(self, bk: int) -> int:
        """Returns the turns of the loop over tiles of depth `bk`."""
        if self.flat:
            return -(-self.taps * self.channels // bk)
        return self.taps * -(-self.channels // bk)

    def down(self, rows: int, bm: int) -> int:
        """Returns the number of tiles of `bm` rows, each of which lies in one matrix of a stack."""
        return -(-rows // bm) if not self.run else rows // self.run * -(-self.run // bm)

    def instances(self, tiles: Tiles, rows: int) -> int:
        """Returns the number of program instances of a launch."""
        across = self.groups * -(-self.columns // tiles.bn)
        return self.down(rows, tiles.bm) * across * tiles.split


def pair(first: str, second: str, values: Pair) -> dict[str, int]:
    """Returns two constants by name."""
    return {first: values[0], second: values[1]}


def window(g: Any) -> dict[str, int]:
    """Returns kernel, stride, padding and dilation as constexpr arguments."""
    return {
        **pair("KH", "KW", g.kernel),
        **pair("SH", "SW", g.stride),
        **pair("PH", "PW", g.padding),
        **pair("DH", "DW", g.dilation),
    }


@dataclass(frozen=True)
class Tiles:
    """The tile of a kernel.

    Attributes:
        bm: the rows of the tile.
        bn: the columns of the tile.
        bk: the depth of the tile along the contracted axis, in one turn of the loop.
        strips: the strips of columns in which the accumulator reaches the slot.
        warps: the number of warps.
        split: the parts of the contracted axis, each summed by an instance of its own.
    """

    bm: int
    bn: int
    bk: int
    strips: int
    warps: int
    split: int = 1

    def constants(self) -> dict[str, int]:
        """Returns the constexpr arguments of the kernel."""
        return {
            "BM": self.bm, "BN": self.bn, "BK": self.bk, "STRIPS": self.strips, "SPLIT": self.split,
        }  # fmt: skip


def contraction_reference(x: Tensor, w: Tensor, geometry: Geometry) -> Tensor:
    """Returns rows × columns of one term, from N×H×W×C and [columns, kh, kw, C]: the oracle."""
    images, g = x.permute(0, 3, 1, 2), geometry
    if not g.backward:
        out = torch.nn.functional.conv2d(
            images, w.permute(0, 3, 1, 2), None, g.stride, g.padding, g.dilation, g.groups
        )
    else:
        apart = w.unflatten(0, (g.groups, g.columns)).permute(0, 4, 1, 2, 3)
        shape = (len(x), g.groups * g.columns, *g.grid)
        out = conv2d_input(
            shape, apart.flatten(0, 1), images, g.stride, g.padding, g.dilation, g.groups
        )
    return out.permute(0, 2, 3, 1).flatten(0, 2)
