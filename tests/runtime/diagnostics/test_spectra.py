"""Edges of spectra against dense eigenvalues."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

import newtriton as nt
from newtriton.compiler.graph.errors import NewtritonError

from ..problems import dense, problem


@pytest.mark.parametrize("matrix", ["hessian", "ggn"])
@pytest.mark.parametrize("k", [1, 4])
def test_edges_are_those_of_the_dense_spectrum(matrix: str, k: int) -> None:
    model, [(x, y)] = problem("cnn", weight_decay=0.1)
    lin = model.linearize(x, y)
    product = lin.hvp if matrix == "hessian" else lin.ggnvp
    values = torch.linalg.eigvalsh(dense(product, model.layout.numel))
    found = nt.spectrum(lin, matrix, k, tolerance=1e-8, basis=32, limit=4000)
    assert found.converged
    assert found.smallest == pytest.approx(values[:k].tolist(), abs=1e-8)
    assert found.largest == pytest.approx(values.flip(0)[:k].tolist(), abs=1e-8)
    assert max(found.smallest_residuals + found.largest_residuals) <= 1e-8 * float(values.max())


def test_a_limit_that_is_too_low_is_told() -> None:
    model, [(x, y)] = problem("cnn")
    found = nt.spectrum(model.linearize(x, y), limit=20, tolerance=1e-10)
    assert not found.converged
    assert found.products == 21
    assert "not converged after 21 products: allow more products by limit=" in str(found)
    assert "float64" not in str(found)  # it is that already
    single = nt.compile(nt.models.small_cnn(), (1, 8, 8), nt.CrossEntropyLoss(), device="cpu")
    lin = single.linearize(torch.randn(8, 1, 8, 8), torch.arange(8))
    assert "compile with dtype=torch.float64" in str(nt.spectrum(lin, limit=20, tolerance=1e-10))
    assert len(str(found).splitlines()) == 1 + 3 + 1


def test_products_that_are_not_finite_have_no_spectrum() -> None:
    model, [(x, y)] = problem("mlp")
    model.params.fill_(math.nan)
    with pytest.raises(NewtritonError, match="not finite"):
        nt.spectrum(model.linearize(x, y))


def test_spectra_converge_in_float32() -> None:
    (x, y), _ = nt.digits()
    model = nt.compile(nt.models.small_cnn(), (1, 8, 8), nt.CrossEntropyLoss())
    assert nt.spectrum(model.linearize(x[:16], y[:16])).converged


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda lin: nt.spectrum(lin, "fisher"), "matrix is 'fisher'"),
        (lambda lin: nt.spectrum(lin, k=1000), "k is 1000"),
        (lambda lin: nt.spectrum(lin, tolerance=1.0), "tolerance is 1.0"),
    ],
)
def test_refuses_what_there_cannot_be(
    call: Callable[[nt.Linearization], object], named: str
) -> None:
    model, [(x, y)] = problem("cnn")
    with pytest.raises(NewtritonError, match=named):
        call(model.linearize(x, y))
