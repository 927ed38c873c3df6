"""Large matrix products on the CPU in float32, by the library that is faster at them.

oneDNN takes half the time of MKL on AMD's processors, and as long on Intel's (512×4608 by
4608×4608 on Zen 5: 99 ms and 210 ms); small ones are called faster by `torch.matmul`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

LARGE = 1 << 22  # multiplications from which on a call's overhead does not count

_mkldnn: Any = torch.ops.mkldnn
HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(_mkldnn, "_linear_pointwise")


def is_large(x: Tensor, y: Tensor) -> bool:
    """Whether oneDNN takes the product x yᵀ."""
    if not HAS_ONEDNN or x.numel() * len(y) < LARGE:
        return False
    return x.ndim == y.ndim == 2 and x.dtype == torch.float32 and x.device.type == "cpu"


def times_transposed(x: Tensor, y: Tensor, bias: Tensor | None = None) -> Tensor:
    """Returns x yᵀ + bias for matrices, or for stacks of them.

    Examples:
        >>> import torch
        >>> from newtriton.kernels.products import times_transposed
        >>> times_transposed(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]]))
        tensor([[11.]])
    """
    if not is_large(x, y):
        if bias is None:
            return x @ y.mT
        if x.ndim == y.ndim == 2:
            return torch.addmm(bias, x, y.mT)
        return (x @ y.mT).add_(bias)
    dense = y.is_contiguous() or y.mT.is_contiguous()  # rows with gaps go a way without blocks
    return _mkldnn._linear_pointwise(x, y if dense else y.contiguous(), bias, "none", [], "")
