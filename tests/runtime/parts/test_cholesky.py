"""Cholesky factors of many matrices: those of each alone, bit for bit, and which have none."""

from __future__ import annotations

import math

import pytest
import torch

from newtriton.runtime.parts.cholesky import System, cholesky

from ..stand_in import positive
from ..transfers import counted


def system(n: int, seed: int, damping: float = 0.3, dtype: torch.dtype = torch.float64) -> System:
    return System(positive(n, seed).to(dtype), torch.tensor(damping, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_factors_are_those_of_each_alone(dtype: torch.dtype) -> None:
    given = [system(n, seed, 0.1 * seed, dtype) for seed, n in enumerate((3, 5, 3, 1, 5, 3))]
    groups = System(
        torch.stack([positive(3, k).to(dtype) for k in range(2)]),
        torch.tensor([0.2, 0.7], dtype=torch.float64),
    )
    before = [matrix.clone() for matrix, _ in given]
    with counted() as transfers:
        found = cholesky([*given, groups])
    assert sum(transfers.reads.values()) == 1
    for (matrix, damping), kept, lower in zip(given, before, found, strict=False):
        eye = torch.eye(len(matrix), dtype=dtype)
        assert lower is not None
        assert torch.equal(lower, torch.linalg.cholesky(matrix + damping.to(dtype) * eye))
        assert torch.equal(matrix, kept)
    assert found[-1] is not None
    for k, damping in enumerate(groups.damping.to(dtype)):
        damped = groups.matrix[k] + damping * torch.eye(3, dtype=dtype)
        assert torch.equal(found[-1][k], torch.linalg.cholesky(damped))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -10.0])
def test_one_matrix_without_a_factor_leaves_the_others_alone(bad: float) -> None:
    good = [system(3, seed) for seed in range(3)]
    spoilt = positive(3, 7)
    spoilt[1, 1] = bad
    expected = cholesky(good)
    found = cholesky([good[0], System(spoilt, good[0].damping), *good[1:]])
    assert found.pop(1) is None
    for lower, other in zip(found, expected, strict=True):
        assert lower is not None and other is not None and torch.equal(lower, other)


def test_one_group_without_a_factor_or_a_damping_that_is_nan() -> None:
    eye = torch.eye(2)
    dampings = torch.zeros(2)
    assert cholesky([System(torch.stack([eye, -eye]), dampings)]) == [None]
    assert cholesky([System(eye, torch.tensor(math.nan))]) == [None]
    assert cholesky([]) == []
