"""Arithmetic on flat vectors: an iteration of conjugate gradients by its textbook equations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from newtriton.runtime.vectors import CHUNK, System, Vectors, inner

generator = torch.Generator().manual_seed(0)
root = torch.randn(6, 6, dtype=torch.float64, generator=generator)
A = root @ root.T + torch.eye(6, dtype=torch.float64)
b = torch.randn(6, dtype=torch.float64, generator=generator)
vectors = Vectors()


def solve(system: System, count: int) -> Tensor:
    """What `count` iterations come to."""
    at = vectors.first(system)
    for i in range(count):
        at = vectors.turn(system, at) if i else at
        at, _ = vectors.iterate(system, at, A @ at.p)
    return at.x


@pytest.mark.parametrize("diagonal", [None, torch.linspace(0.5, 3.0, 6, dtype=torch.float64)])
@pytest.mark.parametrize("damping", [0.0, 0.7])
def test_six_iterations_solve_a_system_of_six(diagonal: Tensor | None, damping: float) -> None:
    precondition = None if diagonal is None else lambda r: r / diagonal
    system = System(b, damping, precondition=precondition)
    dense = torch.linalg.solve(A + damping * torch.eye(6, dtype=torch.float64), b)
    torch.testing.assert_close(solve(system, 6), dense, rtol=1e-7, atol=1e-9)


def test_the_first_iteration_is_the_best_step_along_b() -> None:
    system = System(b, 0.5)
    at, numbers = vectors.iterate(system, vectors.first(system), A @ b)
    curvature = b @ A @ b + 0.5 * b @ b
    torch.testing.assert_close(at.x, b * (b @ b) / curvature)
    torch.testing.assert_close(at.r, b - A @ at.x - 0.5 * at.x)
    assert numbers.rz == pytest.approx(float(b @ b))
    assert numbers.curvature == pytest.approx(float(curvature))
    assert numbers.rr == pytest.approx(float(at.r @ at.r))
    assert not numbers.reached


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_step_that_would_leave_the_ball_or_finds_no_minimum_ends_on_it(sign: float) -> None:
    system = System(b, radius=1e-3)
    assert system.in_ball and not System(b).in_ball
    at, numbers = vectors.iterate(system, vectors.first(system), sign * A @ b)
    assert numbers.reached
    assert float(at.x.norm()) == pytest.approx(1e-3)
    assert float(at.x @ b) > 0


def test_the_right_hand_side_is_not_written_over() -> None:
    before = b.clone()
    solve(System(b), 3)
    assert torch.equal(b, before)


def test_inner_products_are_symmetric_and_in_float64() -> None:
    u, v = torch.full((3,), 1e-3), torch.tensor([1e8, 1.0, -1e8])
    products = vectors.gram([u, v])
    assert products[0, 1] == products[1, 0] == inner(u, v)
    assert products[0, 1] == pytest.approx(1e-3, rel=1e-6)  # float32 gives 0 or 2e-3


def test_long_vectors_are_summed_part_by_part() -> None:
    u = torch.randn(2 * CHUNK + 3, generator=generator)
    v = torch.randn(2 * CHUNK + 3, generator=generator)
    exact = torch.stack([u, v]).double()
    np.testing.assert_allclose(vectors.gram([u, v]), exact @ exact.T, rtol=1e-12)


def test_a_combination() -> None:
    u, v = torch.tensor([1.0, 2.0]), torch.tensor([3.0, -1.0])
    assert vectors.combination(np.array([2.0, -1.0]), [u, v]).tolist() == [-1.0, 5.0]


def test_damping_and_radius_travel_together() -> None:
    assert System(b, 0.25, 2.0).given.tolist() == [0.25, 2.0]
    assert math.isinf(System(b).given[1])
