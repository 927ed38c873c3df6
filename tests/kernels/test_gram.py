"""Grams of rows: those of one product, in panels or not, with a final 1 or without."""

import pytest
import torch

from newtriton.kernels.gram import PANEL, gram

from ..tolerances import assert_close


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("homogeneous", [False, True])
@pytest.mark.parametrize("shape", [(1, 3), (50, 4), (3, 20, 4), (9000, 40), (300, 2 * PANEL + 3)])
def test_products(shape: tuple[int, ...], homogeneous: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=dtype)
    ones = x.new_ones(*shape[:-1], 1) if homogeneous else x[..., :0]
    rows = torch.cat([x, ones], -1).double()
    expected = (0.3 * rows.mT @ rows).to(dtype)
    out = torch.full_like(expected, torch.nan)
    assert gram(x, homogeneous, 0.3, out) is out
    assert_close(out, expected)
    assert_close(gram(x, homogeneous, 0.3), expected)


def test_columns_may_have_gaps() -> None:
    x = torch.randn(300, 4 * PANEL)[:, ::2]
    assert_close(gram(x), (x.double().mT @ x.double()).float())
