"""Large products: those of `torch.matmul`, whatever lies how in memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from newtriton.kernels import products
from newtriton.kernels.products import HAS_ONEDNN, LARGE, is_large, times_transposed

from ..tolerances import assert_close


def laid(rows: int, columns: int, how: str) -> Tensor:
    """Returns a random matrix: row by row, column by column, or with gaps between its rows."""
    matrix = torch.randn(rows, columns)
    if how == "columns":
        return matrix.T.contiguous().T
    return torch.cat([matrix, matrix], 1)[:, :columns] if how == "gaps" else matrix


@pytest.mark.parametrize("x", ["rows", "columns", "gaps"])
@pytest.mark.parametrize("y", ["rows", "columns", "gaps"])
def test_layouts(x: str, y: str) -> None:
    a, b = laid(130, 260, x), laid(150, 260, y)
    assert a.numel() * len(b) >= LARGE
    assert_close(times_transposed(a, b), (a.double() @ b.double().mT).float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("lead", [(), (2,), (2, 3)])
def test_stacks_and_dtypes(dtype: torch.dtype, lead: tuple[int, ...]) -> None:
    a, b = torch.randn(*lead, 4, 5, dtype=dtype), torch.randn(*lead, 3, 5, dtype=dtype)
    assert torch.equal(times_transposed(a, b), a @ b.mT)
    bias = torch.randn(3, dtype=dtype)
    assert_close(times_transposed(a, b, bias), a @ b.mT + bias)
    one = a.flatten(0, -3)[0] if lead else a
    assert_close(times_transposed(one, b, bias), one @ b.mT + bias)


def test_only_large_products_in_float32_are_taken_by_the_other_library() -> None:
    x, small = torch.ones(2048, 64), torch.ones(3, 64)
    assert is_large(x, x) == HAS_ONEDNN
    assert not is_large(x, small) and not is_large(x.double(), x.double())
    assert is_large(x[None], x[None]) == HAS_ONEDNN
    assert is_large(x.expand(3, *x.shape), x) == HAS_ONEDNN
    assert not is_large(x[None, :256].expand(3, 256, 64), x[:256])
    assert not is_large(x.view(128, 16, 64), x.view(128, 16, 64))


@pytest.mark.parametrize("x", ["rows", "columns", "gaps"])
@pytest.mark.parametrize("y", ["rows", "columns", "gaps"])
@pytest.mark.parametrize("lead", [(1, 1), (2,), (2, 3)])
def test_stacks_of_large_matrices(
    x: str, y: str, lead: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "LARGE_IN_STACK", 1)
    a, b = laid(130, 260, x).expand(*lead, 130, 260), laid(150, 260, y)
    a = a * torch.arange(1.0, 1 + lead[0]).view(-1, *[1] * (len(lead) + 1)) if x == "rows" else a
    bias, expected = torch.randn(150), a.double() @ b.double().mT
    for rows in (b, b.expand(lead[-1:] + b.shape)):  # of fewer leading axes
        assert_close(times_transposed(a, rows), expected.float())
        assert_close(times_transposed(a, rows, bias), (expected + bias.double()).float())
