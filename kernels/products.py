"""Large matrix products on the CPU in float32, by the library that is faster at them.

oneDNN takes half the time of MKL on AMD's processors, and as long on Intel's (512×4608 by
4608×4608 on Zen 5: 99 ms and 210 ms); small ones are called faster by `torch.matmul`. So it is with
stacks of matrices, one after another: scores of 512 queries and keys of 64 numbers come at 267
GFLOP/s by oneDNN in two threads, copies included, and at 189 by PyTorch's batched product; of 256
at 156 and 176.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from torch import Tensor

from .memory import empty

LARGE = 1 << 22  # multiplications from which on a call's overhead does not count
LARGE_IN_STACK = 1 << 24  # those of a matrix in a stack, which PyTorch divides among threads

_mkldnn: Any = torch.ops.mkldnn
HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(_mkldnn, "_linear_pointwise")


def is_large(x: Tensor, y: Tensor) -> bool:
    """Whether oneDNN takes the product x yᵀ of two matrices, or of each pair of two stacks."""
    stacked = max(x[..., 0, 0].numel(), y[..., 0, 0].numel()) > 1
    least = LARGE_IN_STACK if stacked else LARGE
    if not HAS_ONEDNN or x.shape[-2:].numel() * y.shape[-2] < least:
        return False
    return x.dtype == y.dtype == torch.float32 and x.device.type == "cpu"


def times_transposed(x: Tensor, y: Tensor, bias: Tensor | None = None) -> Tensor:
    """Returns x yᵀ + bias for matrices, or for stacks of them.

    Examples:
        >>> import torch
        >>> from newtriton.kernels.products import times_transposed
        >>> times_transposed(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]]))
        tensor([[11.]])
    """
    matrices = x.ndim == y.ndim == 2
    if not is_large(x, y):
        if bias is None:
            return x @ y.mT
        return torch.addmm(bias, x, y.mT) if matrices else (x @ y.mT).add_(bias)
    if matrices:
        by_columns = not x.is_contiguous() and x.mT.is_contiguous() and x.numel() > y.numel()
        if bias is None and by_columns:  # the first operand lies by rows: x yᵀ = (y xᵀ)ᵀ
            return _by_onednn(y, x).mT
        return _by_onednn(x, y, bias)
    lead = torch.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    if lead.numel() == 1:
        found = times_transposed(x.reshape(x.shape[-2:]), y.reshape(y.shape[-2:]), bias)
        return found.view(*lead, *found.shape)
    x, y = x.expand(*lead, *x.shape[-2:]), y.expand(*lead, *y.shape[-2:])
    result = empty((*lead, x.shape[-2], y.shape[-2]), x.dtype, x.device)
    for at in product(*map(range, lead)):
        result[at] = times_transposed(x[at], y[at])
    return result if bias is None else result.add_(bias)


def _by_onednn(x: Tensor, y: Tensor, bias: Tensor | None = None) -> Tensor:
    """Returns x yᵀ + bias for matrices."""
    dense = y.is_contiguous() or y.mT.is_contiguous()  # rows with gaps go a way without blocks
    return _mkldnn._linear_pointwise(x, y if dense else y.contiguous(), bias, "none", [], "")
