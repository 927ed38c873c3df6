"""Inverses of many matrices: those of each alone, and which have none."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import newtriton.runtime.parts.cholesky as module
from newtriton.runtime.parts.cholesky import HALVED, System, inverses

from ...tolerances import assert_close, relative_error
from ..stand_in import positive, seeded
from ..transfers import counted


@pytest.fixture(params=[True, False], ids=["lapack", "products"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has matrices be inverted as on a CPU and as on a GPU."""
    monkeypatch.setattr(module, "by_lapack", lambda _: request.param)


def system(n: int, seed: int, damping: float = 0.3, dtype: torch.dtype = torch.float64) -> System:
    return System(positive(n, seed).to(dtype), torch.tensor(damping, dtype=torch.float64))


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_inverses_are_those_of_each_alone(dtype: torch.dtype) -> None:
    given = [system(n, seed, 0.1 * seed, dtype) for seed, n in enumerate((3, 5, 3, 1, 5, 3))]
    groups = System(
        torch.stack([positive(3, k).to(dtype) for k in range(2)]),
        torch.tensor([0.2, 0.7], dtype=torch.float64),
    )
    before = [matrix.clone() for matrix, _ in given]
    with counted() as transfers:
        found = inverses([*given, groups])
    assert sum(transfers.reads.values()) == 1
    for (matrix, damping), kept, inverse in zip(given, before, found, strict=False):
        eye = torch.eye(len(matrix), dtype=dtype)
        assert inverse is not None
        assert_close(inverse, torch.linalg.inv(matrix + damping.to(dtype) * eye))
        assert torch.equal(matrix, kept)
    assert found[-1] is not None
    for k, damping in enumerate(groups.damping.to(dtype)):
        damped = groups.matrix[k] + damping * torch.eye(3, dtype=dtype)
        assert_close(found[-1][k], torch.linalg.inv(damped))


def conditioned(n: int, condition: float) -> Tensor:
    """A matrix of float32, in float64, with eigenvalues from 1/condition to 1."""
    shape = torch.randn(n, n, generator=seeded(0), dtype=torch.float64)
    vectors = torch.linalg.qr(shape).Q
    values = torch.logspace(0.0, -math.log10(condition), n, dtype=torch.float64)
    matrix = (vectors * values @ vectors.mT).float().double()
    return 0.5 * (matrix + matrix.mT)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("n", [2 * HALVED - 100, 2 * HALVED + 77])
@pytest.mark.parametrize("condition", [1e2, 1e5])
def test_solutions_are_as_good_as_those_by_substitution(n: int, condition: float) -> None:
    """Cut in halves once and twice; in float64, and in float32 beside `cholesky_solve`."""
    matrix, damping = conditioned(n, condition), torch.tensor(0.0)
    right = torch.randn(n, 8, generator=seeded(1), dtype=torch.float64)
    expected = torch.linalg.solve(matrix, right)
    (exact,) = inverses([System(matrix, damping)])
    (rounded,) = inverses([System(matrix.float(), damping)])
    assert exact is not None and rounded is not None
    assert torch.equal(
        exact[: n // 2 - 100, n // 2 + 100 :], exact[n // 2 + 100 :, : n // 2 - 100].T
    )
    assert_close(exact @ right, expected)
    substituted = torch.cholesky_solve(right.float(), torch.linalg.cholesky(matrix.float()))
    error = relative_error(rounded @ right.float(), expected)
    assert error <= 4 * relative_error(substituted, expected)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("n", [3, 2 * HALVED])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -10.0])
def test_one_matrix_without_an_inverse_leaves_the_others_alone(bad: float, n: int) -> None:
    good = [System(torch.eye(n), torch.tensor(float(seed))) for seed in range(3)]
    for place in (1, n - 1):
        spoilt = 2 * torch.eye(n)
        spoilt[place, place] = bad
        expected = inverses(good)
        found = inverses([good[0], System(spoilt, good[0].damping), *good[1:]])
        assert found.pop(1) is None
        for inverse, other in zip(found, expected, strict=True):
            assert inverse is not None and other is not None and torch.equal(inverse, other)


@pytest.mark.usefixtures("way")
def test_one_group_without_an_inverse_or_a_damping_that_is_nan() -> None:
    eye = torch.eye(2)
    dampings = torch.zeros(2)
    assert inverses([System(torch.stack([eye, -eye]), dampings)]) == [None]
    assert inverses([System(eye, torch.tensor(math.nan))]) == [None]
    assert inverses([]) == []


@pytest.mark.parametrize("name", ["cholesky_ex", "solve_triangular"])
def test_an_error_of_the_library_is_no_inverse(name: str, monkeypatch) -> None:
    monkeypatch.setattr(module, "by_lapack", lambda _: False)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("cusolver error: CUSOLVER_STATUS_INTERNAL_ERROR")

    monkeypatch.setattr(torch.linalg, name, fail)
    assert inverses([system(3, 0), system(5, 1)]) == [None, None]


def test_other_errors_come_through(monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("cusolver: out of memory")

    monkeypatch.setattr(torch.linalg, "cholesky_ex", fail)
    with pytest.raises(torch.OutOfMemoryError):
        inverses([system(3, 0)])
