"""The skeleton of everything that is no contraction: a tile of rows × columns, handed to a slot.

Maps, pools, losses, batch statistics, packing of weights and the second stages of sums are all
this kernel; what a tile computes is in its slot.
"""

import triton
import triton.language as tl


@triton.jit
def tile(
    pid, p, batch, rows, COLUMNS: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
    SLOT: tl.constexpr,
):  # fmt: skip
    """Hands tile number `pid` of a rows × COLUMNS space, counted row by row, to the slot."""
    strips: tl.constexpr = (COLUMNS + BC - 1) // BC
    i = pid // strips
    j = pid % strips
    m = i * BR + tl.arange(0, BR)
    n = j * BC + tl.arange(0, BC)
    SLOT(0.0, i, j, 0, m, n, (m < rows)[:, None], (n < COLUMNS)[None, :], p, batch)


def tile_shape(rows: int, columns: int, widest: int, elements: int) -> tuple[int, int]:
    """Returns rows and columns of a tile of about so many elements: powers of two."""
    bc = min(power(columns), widest)
    return min(power(rows), max(1, elements // bc)), bc


def power(n: int) -> int:
    """Returns the next power of two."""
    return 1 << max(0, n - 1).bit_length()
