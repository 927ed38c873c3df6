"""Block Lanczos on matrices whose spectra are known."""

from __future__ import annotations

import pytest
import torch

from newtriton.runtime.diagnostics.lanczos import spectrum_edges


def test_multiple_eigenvalues_are_seen_as_often_as_they_occur() -> None:
    torch.manual_seed(0)
    values = torch.cat([torch.zeros(100), torch.rand(46) + 0.1, torch.full((4,), 2.0)]).double()
    rotation = torch.linalg.qr(torch.randn(150, 150, dtype=torch.float64))[0]
    matrix = (rotation * values) @ rotation.T
    found = spectrum_edges(
        lambda v: matrix @ v, values, 3, tolerance=1e-10, limit=1000, basis_size=24
    )
    assert found.smallest == pytest.approx([0.0] * 3, abs=1e-12)
    assert found.largest == pytest.approx([2.0] * 3, abs=1e-12)
    assert found.products < 150


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("n", [1, 2, 7])
def test_small_operators_are_solved_whole(n: int, dtype: torch.dtype) -> None:
    values = torch.arange(float(n), dtype=dtype)
    for k in range(1, n + 1):
        options = {"tolerance": 0.0, "limit": 1000, "basis_size": 4}
        found = spectrum_edges(lambda v: values * v, values, k, **options)
        limit = 100 * torch.finfo(dtype).eps
        assert found.smallest == pytest.approx(values[:k].tolist(), abs=limit)
        assert found.largest == pytest.approx(values.flip(0)[:k].tolist(), abs=limit)
        assert found.products == n
        assert found.converged
    zero = spectrum_edges(torch.zeros_like, values, n, **options)
    assert zero.converged
    assert zero.largest == (0.0,) * n
