"""What generated passes call: what is kept of a row while its tiles pass."""

import triton
import triton.language as tl

from .functions import row_max


@triton.jit
def larger(most, x):
    """Returns the maximum so far and that of a tile, NaN where there is one.

    What is kept is a number for each row, or for each element of a tile.
    """
    if most.shape[1] == 1:
        x = row_max(x)
    return tl.maximum(most, x, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def summed(total, x):
    """Returns the sum so far with a tile added: a number for each row, or for each element."""
    if total.shape[1] == 1:
        x = tl.sum(x, axis=1, keep_dims=True)
    return total + x


@triton.jit
def largest_of_row(most):
    """Returns a number for each row: the maximum of what has been kept."""
    if most.shape[1] != 1:
        most = row_max(most)
    return most


@triton.jit
def sum_of_row(total):
    """Returns a number for each row: the sum of what has been kept."""
    if total.shape[1] != 1:
        total = tl.sum(total, axis=1, keep_dims=True)
    return total


@triton.jit
def finite(x):
    """Returns finite numbers as they are, and 0 for others."""
    return tl.where((x > float("-inf")) & (x < float("inf")), x, 0.0)


@triton.jit
def add_exponentials(most, total, x):
    """Returns the maximum so far, and the sum of exponentials, with a tile added.

    Out of the exponentials the maximum is taken, where it is finite.
    """
    new = larger(most, x)
    shift = finite(new)
    return new, summed(total * tl.exp(most - shift), tl.exp(x - shift))


@triton.jit
def draw_total(most, total, last, z, c):
    """Returns maximum, sum of exponentials and last class of each row so far, with a tile added.

    Logits of −∞ are no classes.
    """
    wide = z.to(tl.float64)
    new = tl.maximum(most, tl.max(wide, axis=1, keep_dims=True))
    scale = tl.where(most == new, 1.0, tl.exp(most - new))
    total = total * scale + tl.sum(tl.exp(wide - new), axis=1, keep_dims=True)
    found = tl.max(tl.where(z > float("-inf"), c, 0), axis=1, keep_dims=True)
    return new, total, tl.maximum(last, found)


@triton.jit
def draw_class(count, before, most, total, last, z, u, c):
    """Returns how many classes of each row come before the one drawn, with those of a tile.

    That is the first one whose cumulative probability exceeds u.
    """
    p = tl.exp(z.to(tl.float64) - most)
    cumulative = before + tl.cumsum(p, axis=1)
    beyond = (u * total >= cumulative) & (c < last)
    count += tl.sum(beyond.to(tl.int32), axis=1, keep_dims=True)
    return count, before + tl.sum(p, axis=1, keep_dims=True)


@triton.jit
def largest(x, count, stride, factor):
    """Returns the largest of `count` numbers, multiplied by a factor."""
    found = float("-inf")
    for start in range(0, count, 1024):
        at = start + tl.arange(0, 1024)
        value = factor * tl.load(x + at * stride, mask=at < count, other=0.0)
        found = tl.maximum(found, tl.max(tl.where(at < count, value, float("-inf"))))
    return found


@triton.jit
def seen(x, count, stride, factor, least):
    """Returns where those of `count` numbers begin and end for which factor · x + least ≤ 0."""
    first = count
    end = count * 0
    for start in range(0, count, 1024):
        at = start + tl.arange(0, 1024)
        value = factor * tl.load(x + at * stride, mask=at < count, other=0.0) + least
        visible = (at < count) & (value <= 0)
        first = tl.minimum(first, tl.min(tl.where(visible, at, count)))
        end = tl.maximum(end, tl.max(tl.where(visible, at + 1, 0)))
    return first, end
