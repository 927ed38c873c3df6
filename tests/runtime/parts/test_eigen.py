"""Spectra of many matrices: those of each alone, which have none, and a basis that is refined."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from newtriton.runtime.parts.eigen import Spectrum, Symmetric, diagonalise

from ..stand_in import positive, seeded
from ..transfers import counted


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64).to(dtype)


def spectrum(problem: Symmetric) -> Spectrum:
    found = diagonalise([problem])[0]
    assert found is not None
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_spectra_are_those_of_each_alone(dtype: torch.dtype) -> None:
    given = [positive(n, seed).to(dtype) for seed, n in enumerate((3, 5, 3, 1, 5, 3))]
    groups = torch.stack([positive(3, k).to(dtype) for k in range(2)])
    root = random(4, 2, dtype=dtype)
    with counted() as transfers:
        found = diagonalise([*map(Symmetric, (*given, groups)), Symmetric(root, is_root=True)])
    # a call for each shape looks whether it has converged; the numbers come over once
    calls = transfers.reads["_linalg_eigh"] + transfers.reads["_linalg_svd"]
    assert (calls, sum(transfers.reads.values())) == (5, 6)
    for matrix, one in zip([*given, groups], found, strict=False):
        assert one is not None
        values, vectors = torch.linalg.eigh(matrix)
        assert torch.equal(one.values, values) and torch.equal(one.vectors, vectors)
    assert found[-1] is not None
    values, vectors = found[-1]
    assert values.shape == (2,) and vectors.shape == (4, 2)
    torch.testing.assert_close(vectors * values @ vectors.mT, root @ root.mT)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_one_matrix_without_a_spectrum_leaves_the_others_alone(bad: float, known: bool) -> None:
    basis = torch.eye(3, dtype=torch.float64) if known else None
    good = [Symmetric(positive(3, seed), basis=basis) for seed in range(3)]
    spoilt = positive(3, 7)
    spoilt[1, 1] = bad
    expected = diagonalise(good)
    found = diagonalise([good[0], Symmetric(spoilt, basis=basis), *good[1:]])
    assert found.pop(1) is None
    for one, other in zip(found, expected, strict=True):
        assert one is not None and other is not None
        assert torch.equal(one.vectors, other.vectors)
    spoilt_group = Symmetric(torch.stack([positive(3), spoilt]))
    assert diagonalise([spoilt_group, Symmetric(spoilt[:, :2], is_root=True)]) == [None, None]
    assert diagonalise([]) == []


def test_refined_bases_converge_to_the_eigenvectors() -> None:
    """At the rate of the ratio of neighbouring eigenvalues, from any basis; groups apart."""
    values = torch.tensor([16.0, 8.0, 4.0, 2.0, 1.0], dtype=torch.float64)
    turns = [torch.linalg.qr(random(5, 5, seed=k)).Q for k in range(2)]
    matrices = torch.stack([(u * values) @ u.mT for u in turns])
    basis = torch.linalg.qr(random(2, 5, 5, seed=3)).Q
    errors = []
    for _ in range(60):
        found = spectrum(Symmetric(matrices, basis=basis))
        basis = found.vectors
        torch.testing.assert_close(basis.mT @ basis, torch.eye(5).double().expand(2, 5, 5))
        errors.append(float((found.values - values).norm()))
    assert errors[20] < 1e-3 * errors[0]
    torch.testing.assert_close(found.values, values.expand(2, 5), rtol=1e-12, atol=0)
    exact = torch.linalg.eigh(matrices).eigenvectors.flip(-1)
    overlap = (basis.mT @ exact).abs()
    torch.testing.assert_close(overlap, torch.eye(5).double().expand(2, 5, 5), atol=1e-9, rtol=0)


def test_eigenvectors_stay_what_they_are() -> None:
    matrix = positive(6)
    exact = spectrum(Symmetric(matrix))
    refined = spectrum(Symmetric(matrix, basis=exact.vectors))
    torch.testing.assert_close(refined.values.flip(-1), exact.values)
    overlap = (refined.vectors.flip(-1).mT @ exact.vectors).abs()
    torch.testing.assert_close(overlap, torch.eye(6, dtype=torch.float64))


@pytest.mark.parametrize("rank", [0, 2])
def test_a_basis_of_a_singular_matrix_is_orthonormal(rank: int) -> None:
    root = random(5, rank)
    basis = torch.linalg.qr(random(5, 5, seed=1)).Q
    for _ in range(3):
        values, basis = spectrum(Symmetric(root @ root.mT, basis=basis))
        torch.testing.assert_close(basis.mT @ basis, torch.eye(5, dtype=torch.float64))
    assert values.min() > -1e-14
    torch.testing.assert_close(values.sum(), root.square().sum())


def test_an_error_of_the_library_is_no_spectrum_of_the_matrix_that_caused_it(monkeypatch) -> None:
    known = torch.linalg.eigh

    def fail(matrices: Tensor) -> object:
        if bool((matrices[..., 0, 0] < 0.0).any()):
            raise RuntimeError("cusolver error: CUSOLVER_STATUS_EXECUTION_FAILED")
        return known(matrices)

    monkeypatch.setattr(torch.linalg, "eigh", fail)
    good, bad = diagonalise([Symmetric(positive(3, 0)), Symmetric(-positive(3, 0))])
    assert good is not None and bad is None


def test_other_errors_come_through(monkeypatch) -> None:
    def fail(matrices: Tensor) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.linalg, "eigh", fail)
    with pytest.raises(RuntimeError, match="illegal"):
        diagonalise([Symmetric(positive(3, 0))])


@pytest.mark.parametrize("bad", [math.nan, 1e300])
def test_vectors_that_cannot_be_orthonormal_are_no_spectrum(monkeypatch, bad: float) -> None:
    known = torch.linalg.eigh

    def fail(matrices: Tensor) -> object:
        values, vectors = known(matrices)
        return values, torch.full_like(vectors, bad)

    monkeypatch.setattr(torch.linalg, "eigh", fail)
    assert diagonalise([Symmetric(positive(3, 0))]) == [None]
