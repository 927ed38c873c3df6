"""What generated slots call: functions of numbers, and sums of parts that tiles have written."""

import triton
import triton.language as tl


@triton.jit
def tanh(x):
    """Returns tanh x: a polynomial where 1 − 2/(e²ˣ + 1) would cancel (Cephes)."""
    z = x * x
    small = ((-5.70498872745e-3 * z + 2.06390887954e-2) * z - 5.37397155531e-2) * z
    small = ((small + 1.33314422036e-1) * z - 3.33332819422e-1) * z * x + x
    large = 1.0 - 2.0 / (tl.exp(2.0 * tl.abs(x)) + 1.0)
    return tl.where(tl.abs(x) < 0.625, small, tl.where(x < 0, -large, large))


@triton.jit
def softplus(x):
    """Returns log(1 + eˣ) without overflow; the rounding of 1 + y in log(1 + y) is made good."""
    y = tl.exp(-tl.abs(x))
    u = 1.0 + y
    exact = u == 1.0
    log1p = tl.where(exact, y, tl.log(u) * (y / tl.where(exact, 1.0, u - 1.0)))
    return tl.maximum(x, 0.0) + log1p


@triton.jit
def power(x, exponent):
    """Returns x to the power of a positive number; in float64, since log x is multiplied by it."""
    return tl.exp(exponent * tl.log(x.to(tl.float64))).to(tl.float32)


@triton.jit
def positive_part(x):
    """Returns max(x, 0), and NaN of NaN, which `tl.maximum` alone would leave out."""
    return tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def round_tf32(x):
    """Returns the nearest number with ten bits of mantissa; tensor cores would cut it off."""
    bits = x.to(tl.int32, bitcast=True)
    rounded = ((bits + 0x1000) & -0x2000).to(tl.float32, bitcast=True)
    return tl.where(tl.abs(x) < float("inf"), rounded, x)


@triton.jit
def round_bf16(x):
    """Returns the nearest number with seven bits of mantissa."""
    return x.to(tl.bfloat16).to(tl.float32)


@triton.jit
def row_max(x):
    """Returns the maximum of every row, NaN where there is one: `tl.max` would leave it out."""
    real = x == x  # noqa: PLR0124 - of NaN it is false
    most = tl.max(tl.where(real, x, float("-inf")), axis=1, keep_dims=True)
    return most + tl.sum(tl.where(real, 0.0, x), axis=1, keep_dims=True)


@triton.jit
def draw(z, u, c):
    """Returns the first class per row whose cumulative probability exceeds u.

    Logits of −∞ are no classes.
    """
    wide = z.to(tl.float64)
    p = tl.exp(wide - tl.max(wide, axis=1, keep_dims=True))
    cumulative = tl.cumsum(p, axis=1)
    total = tl.sum(p, axis=1, keep_dims=True)
    last = tl.max(tl.where(z > float("-inf"), c, 0), axis=1, keep_dims=True)
    beyond = (u * total >= cumulative) & (c < last)
    return tl.sum(beyond.to(tl.int32), axis=1, keep_dims=True)


@triton.jit
def add_all(parts, count):
    """Returns the sum of `count` numbers, in a fixed order and in float64."""
    total = tl.zeros((1024,), tl.float64)
    for start in range(0, count, 1024):
        at = start + tl.arange(0, 1024)
        total += tl.load(parts + at, mask=at < count, other=0.0)
    return tl.sum(total).to(tl.float32)


@triton.jit
def add_rows(parts, count, columns: tl.constexpr, c, mc):
    """Returns the sum of `count` rows at the columns c, in a fixed order and in float64."""
    total = tl.zeros((128, c.shape[1]), tl.float64)
    for start in range(0, count, 128):
        at = (start + tl.arange(0, 128))[:, None]
        total += tl.load(parts + at * columns + c, mask=(at < count) & mc, other=0.0)
    return tl.sum(total, axis=0, keep_dims=True).to(tl.float32)
