"""What generated passes call: what is kept of a row while its tiles pass."""

import triton
import triton.language as tl

from .functions import row_max


@triton.jit
def larger(most, x):
    """Returns the maximum of each row so far and of a tile, NaN where there is one."""
    return tl.maximum(most, row_max(x), propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def finite(x):
    """Returns finite numbers as they are, and 0 for others."""
    return tl.where((x > float("-inf")) & (x < float("inf")), x, 0.0)


@triton.jit
def add_exponentials(most, total, x):
    """Returns the maximum of each row so far, and the sum of exponentials, with a tile added.

    Out of the exponentials the maximum is taken, where it is finite.
    """
    new = larger(most, x)
    shift = finite(new)
    added = tl.sum(tl.exp(x - shift), axis=1, keep_dims=True)
    return new, total * tl.exp(most - shift) + added
