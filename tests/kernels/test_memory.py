"""New memory: of the shape that is asked for, aligned as PyTorch's is."""

from __future__ import annotations

import pytest
import torch

from newtriton.kernels.memory import ALIGNMENT, LARGE, empty, empty_like


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
@pytest.mark.parametrize("rows", [0, 1, LARGE // 8])
def test_shape_dtype_and_alignment(dtype: torch.dtype, rows: int) -> None:
    x = empty((rows, 3), dtype, torch.device("cpu"))
    assert (x.shape, x.dtype, x.is_contiguous()) == ((rows, 3), dtype, True)
    assert x.data_ptr() % ALIGNMENT == 0
    y = empty_like(x.fill_(1).T)
    assert (y.shape, y.is_contiguous()) == ((3, rows), True)
    assert torch.equal(y.fill_(1), x.T) and (not rows or y.data_ptr() != x.data_ptr())
