"""The Gram matrix of rows, each pair of columns multiplied about once.

The matrix is symmetric: wide ones are computed in panels of rows from the diagonal on, and
mirrored (1,024×1,000 on one core of Zen 5: 6.6 ms instead of 9.3). Rows that end in a 1 are not
written: its products are sums of columns. Of narrow rows MKL is faster than oneDNN (65,536×16:
0.36 ms and 0.78), and one product than panels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .products import is_large, times_transposed

PANEL = 256  # columns of which products of few rows still run at full speed
NARROW = 64  # columns below which products are not worth oneDNN's packing


def gram(
    x: Tensor, homogeneous: bool = False, scale: float = 1.0, out: Tensor | None = None
) -> Tensor:
    """Returns scale · xᵀ x for rows x, with a final 1 in each if `homogeneous`.

    Args:
        x: the rows, N×D or groups×N×D.
        homogeneous: whether rows end in a 1.
        scale: a factor of the result.
        out: where to write, of the result's shape.

    Examples:
        >>> import torch
        >>> from newtriton.kernels.gram import gram
        >>> gram(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), homogeneous=True)
        tensor([[10., 14.,  4.],
                [14., 20.,  6.],
                [ 4.,  6.,  2.]])
    """
    count, d = x.shape[-2:]
    size = d + homogeneous
    result = x.new_empty(*x.shape[:-2], size, size) if out is None else out
    _write_products(x, result[..., :d, :d])
    if homogeneous:
        result[..., d, :d] = result[..., :d, d] = x.sum(-2)
        result[..., d, d].fill_(count)  # a number assigned would come from the CPU
    return result.mul_(scale)


def _write_products(x: Tensor, out: Tensor) -> None:
    """Writes xᵀ x."""
    d = x.shape[-1]
    if d < NARROW or not is_large(x.mT, x.mT):
        out.copy_(x.mT @ x) if x.ndim > 2 else torch.mm(x.mT, x, out=out)
        return
    if d < 2 * PANEL:
        out.copy_(times_transposed(x.mT, x.mT))
        return
    columns = x.mT.contiguous()
    for start in range(0, d, PANEL):
        stop = min(start + PANEL, d)
        out[start:stop, start:] = times_transposed(columns[start:stop], columns[start:])
        out[stop:, start:stop] = out[start:stop, stop:].mT
