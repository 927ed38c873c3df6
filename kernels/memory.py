"""New memory: large tensors on the CPU lie on huge pages.

A page that is touched first costs a fault, and every large tensor of PyTorch's is new to the
process: writing 37 MB takes 17 ms, 5 on huge pages, which NumPy asks the kernel for.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

LARGE = 1 << 22  # bytes from which on NumPy asks for huge pages
ALIGNMENT = 64  # bytes: that of PyTorch's own memory


def empty(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Returns a new tensor, whose values are undefined.

    Examples:
        >>> import torch
        >>> from newtriton.kernels.memory import empty
        >>> empty((2, 3), torch.float32, torch.device("cpu")).shape
        torch.Size([2, 3])
    """
    size = math.prod(shape) * dtype.itemsize
    if size < LARGE or device.type != "cpu":
        return torch.empty(shape, dtype=dtype, device=device)
    buffer = torch.from_numpy(np.empty(size + ALIGNMENT, np.uint8))
    start = -buffer.data_ptr() % ALIGNMENT
    return buffer[start : start + size].view(dtype).view(shape)


def empty_like(x: Tensor) -> Tensor:
    """Returns a new contiguous tensor of the shape, dtype and device of another."""
    return empty(tuple(x.shape), x.dtype, x.device)
