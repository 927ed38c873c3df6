"""The precision of PyTorch's own products on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def tensor_cores(device: torch.device, allowed: bool) -> Iterator[None]:
    """Says whether float32 products on a GPU may be taken in tf32 inside the `with`.

    PyTorch's setting is put back at its end. On other devices nothing changes.
    """
    if device.type != "cuda":
        yield
        return
    cudnn: Any = torch.backends.cudnn
    cublas: Any = torch.backends.cuda.matmul
    before = cudnn.allow_tf32, cublas.allow_tf32
    cudnn.allow_tf32 = cublas.allow_tf32 = allowed
    try:
        yield
    finally:
        cudnn.allow_tf32, cublas.allow_tf32 = before
