"""Conjugate gradients against dense solves, each way they end, and Steihaug's in a ball."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.parts.protocols import LinearSolver, Solution, Status
from newtriton.runtime.parts.tags import Tag
from newtriton.runtime.solvers.cg import (
    Steihaug,
    Stop,
    TruncatedCG,
    conjugate_gradients,
    conjugate_gradients_on_each,
)
from newtriton.runtime.vectors import Operator, System, Vectors

from ..stand_in import positive, seeded
from ..transfers import counted

TIGHT = Stop(limit=100, tolerance=1e-12)


def rhs(n: int, seed: int = 5) -> Tensor:
    return torch.randn(n, generator=seeded(seed), dtype=torch.float64)


def indefinite(n: int, seed: int = 1) -> Tensor:
    values = torch.linspace(-1.0, 3.0, n, dtype=torch.float64)
    q, _ = torch.linalg.qr(positive(n, seed))
    return q @ torch.diag(values) @ q.T


def operator(a: Tensor) -> SimpleNamespace:
    """A curvature that is a matrix."""
    return SimpleNamespace(mv=lambda v: a @ v, model=SimpleNamespace(vectors=Vectors()))


def cg(
    product: Operator, b: Tensor, stop: Stop = TIGHT, precondition: Operator | None = None
) -> Solution:
    return conjugate_gradients(product, System(b, precondition=precondition), stop)


@pytest.mark.parametrize("preconditioned", [False, True])
def test_solves_a_dense_system(preconditioned: bool) -> None:
    a, b = positive(12), rhs(12)
    inverse = torch.linalg.inv(a + 0.1 * positive(12, 3))
    precondition = (lambda r: inverse @ r) if preconditioned else None
    solution = cg(lambda p: a @ p, b, TIGHT, precondition)
    assert solution.status is Status.SOLVED
    torch.testing.assert_close(solution.x, torch.linalg.solve(a, b), rtol=1e-10, atol=1e-12)


def test_an_exact_preconditioner_takes_one_iteration() -> None:
    a, b = positive(12), rhs(12)
    solution = cg(lambda p: a @ p, b, TIGHT, lambda r: torch.linalg.solve(a, r))
    assert solution.statistics == {"cg_iterations": 1}


def test_a_preconditioner_is_asked_once_an_iteration() -> None:
    a, asked = positive(12), []
    solution = cg(lambda p: a @ p, rhs(12), precondition=lambda r: asked.append(r) or 0.5 * r)
    assert len(asked) == solution.statistics["cg_iterations"]


@pytest.mark.parametrize("tolerance", [1e-1, 1e-3, 1e-6])
def test_stops_within_its_tolerance_and_not_before(tolerance: float) -> None:
    a, b = positive(30), rhs(30)
    solution = cg(lambda p: a @ p, b, Stop(100, tolerance))
    assert float((a @ solution.x - b).norm() / b.norm()) <= tolerance * (1 + 1e-9)
    shorter = Stop(solution.statistics["cg_iterations"] - 1, tolerance)
    before = cg(lambda p: a @ p, b, shorter)
    assert before.status is Status.LIMIT
    assert float((a @ before.x - b).norm() / b.norm()) > tolerance


def test_stops_where_the_quadratic_falls_too_slowly() -> None:
    n, epsilon = 200, 5e-4
    a = torch.diag(torch.logspace(-3, 0, n, dtype=torch.float64))
    b = rhs(n)
    solution = cg(lambda p: a @ p, b, Stop(1000, 0.0, epsilon))
    assert solution.status is Status.STALLED
    last = solution.statistics["cg_iterations"]
    k = max(10, last // 10)

    def phi(limit: int) -> float:
        x = cg(lambda p: a @ p, b, Stop(limit, 0.0)).x
        return float(0.5 * x @ a @ x - b @ x)

    assert (phi(last) - phi(last - k)) / phi(last) < k * epsilon
    k = max(10, (last - 1) // 10)
    assert (phi(last - 1) - phi(last - 1 - k)) / phi(last - 1) >= k * epsilon


def test_nothing_to_solve() -> None:
    solution = cg(lambda p: p, torch.zeros(3), TIGHT)
    assert (solution.status, solution.statistics["cg_iterations"]) == (Status.SOLVED, 0)


def test_negative_curvature_ends_in_the_last_point_or_along_the_slope() -> None:
    a, b = indefinite(12), rhs(12)
    solution = cg(lambda p: a @ p, b, TIGHT)
    assert solution.status is Status.NEGATIVE_CURVATURE
    assert float(solution.x @ b) > 0
    at_once = cg(lambda p: -p, b, TIGHT)
    assert at_once.status is Status.NEGATIVE_CURVATURE
    torch.testing.assert_close(at_once.x, b)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_product_that_is_not_finite_is_a_status(bad: float) -> None:
    solution = cg(lambda p: bad * p, rhs(4), TIGHT)
    assert solution.status is Status.NOT_FINITE
    assert solution.status.failed
    assert not solution.x.any()
    assert cg(lambda p: p, bad * rhs(4), TIGHT).status is Status.NOT_FINITE


def test_a_preconditioner_that_is_not_positive_definite_is_a_status() -> None:
    a = positive(6)
    solution = cg(lambda p: a @ p, rhs(6), TIGHT, lambda r: -r)
    assert solution.status is Status.BREAKDOWN
    assert solution.status.failed
    assert not solution.x.any()


@pytest.mark.parametrize("definite", [True, False])
@pytest.mark.parametrize("radius", [0.01, 0.5, 1.0])
def test_steihaug_stays_in_the_ball_and_is_no_worse_than_cauchys_point(
    definite: bool, radius: float
) -> None:
    a = positive(12) if definite else indefinite(12)
    g = rhs(12)
    solution = Steihaug(100, 1e-12).solve(operator(a), 0.0, g, radius)
    s = -solution.x
    assert float(s.norm()) <= radius * (1 + 1e-12)

    def model(s: Tensor) -> float:
        return float(g @ s + 0.5 * s @ a @ s)

    form = float(g @ a @ g)
    reach = radius / float(g.norm())
    cauchy = min(reach, float(g @ g) / form) if form > 0 else reach
    assert model(s) <= model(-cauchy * g) + 1e-12
    if solution.status in (Status.BOUNDARY, Status.NEGATIVE_CURVATURE):
        assert float(s.norm()) == pytest.approx(radius, rel=1e-12)


def test_steihaug_inside_the_ball_is_newtons_step() -> None:
    a, g = positive(12), rhs(12)
    solution = Steihaug(100, 1e-12).solve(operator(a), 0.3, g, 1e6)
    assert solution.status is Status.SOLVED
    expected = torch.linalg.solve(a + 0.3 * torch.eye(12, dtype=torch.float64), g)
    torch.testing.assert_close(solution.x, expected, rtol=1e-10, atol=1e-12)


def test_steihaug_on_a_sphere_of_negative_curvature() -> None:
    g = rhs(5)
    solution = Steihaug().solve(operator(-torch.eye(5, dtype=torch.float64)), 0.0, g, 2.0)
    assert solution.status is Status.NEGATIVE_CURVATURE
    torch.testing.assert_close(solution.x, 2.0 * g / g.norm())


class Inner(LinearSolver):
    """A Kronecker solver that is a matrix."""

    name: str = "inner"
    needs: frozenset[Tag] = frozenset()

    def __init__(self, a: Tensor, status: Status = Status.SOLVED) -> None:
        self.a, self.status, self.asked = a, status, []

    def prepare(self, curvature: object, damping: float) -> Any:
        def solve(g: Tensor) -> Solution:
            self.asked.append(curvature)
            shift = damping * torch.eye(len(g), dtype=g.dtype)
            return Solution(torch.linalg.solve(self.a + shift, g), self.status)

        return SimpleNamespace(solve=solve)


def test_truncated_cg_preconditions_with_the_curvatures_factors() -> None:
    a, g = positive(12), rhs(12)
    curvature = operator(a)
    curvature.preconditioner = object()
    inner = Inner(a)
    solution = TruncatedCG(50, 1e-10, preconditioner=inner).solve(curvature, 0.2, g)  # type: ignore[arg-type]
    assert solution.statistics["cg_iterations"] == 1
    assert set(inner.asked) == {curvature.preconditioner}
    expected = torch.linalg.solve(a + 0.2 * torch.eye(12, dtype=torch.float64), g)
    torch.testing.assert_close(solution.x, expected, rtol=1e-10, atol=1e-12)


def test_a_preconditioner_solves_once_an_iteration() -> None:
    """The solve whose status is looked at first gives CG's first direction as well."""
    a, g = positive(12), rhs(12)
    curvature, inner = operator(a), Inner(positive(12, 3))
    curvature.preconditioner = object()
    solution = TruncatedCG(50, 1e-10, preconditioner=inner).solve(curvature, 0.2, g)  # type: ignore[arg-type]
    assert solution.status is Status.SOLVED
    assert len(inner.asked) == solution.statistics["cg_iterations"] > 2


def test_a_preconditioner_that_fails_is_the_solves_status() -> None:
    curvature = operator(positive(6))
    curvature.preconditioner = object()
    inner = Inner(positive(6), Status.FAILED)
    solution = TruncatedCG(preconditioner=inner).solve(curvature, 0.2, rhs(6))  # type: ignore[arg-type]
    assert solution.status is Status.FAILED


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"limit": 0}, "limit is 0"),
        ({"limit": 2.5}, r"limit is 2\.5"),
        ({"tolerance": 1.0}, r"tolerance is 1\.0"),
        ({"tolerance": "0.1"}, "tolerance is '0.1'"),
        ({"progress": -1e-3}, r"progress is -0\.001"),
    ],
)
@pytest.mark.parametrize("solver", [TruncatedCG, Steihaug])
def test_refuses_options(solver: type, options: dict, named: str) -> None:
    with pytest.raises(NewtritonError, match=named):
        solver(**options)


def test_systems_side_by_side_end_as_each_does_alone_and_share_their_transfers() -> None:
    """Solved, at the limit, of negative curvature, of b = 0, and not finite."""
    bad = torch.full((4, 4), math.nan, dtype=torch.float64)
    matrices = [positive(6), positive(30), indefinite(9), positive(5), bad]
    rights = [rhs(6), rhs(30), rhs(9), 0.0 * rhs(5), rhs(4)]
    systems = [
        ((lambda p, a=a: a @ p), System(b, 1e-3)) for a, b in zip(matrices, rights, strict=True)
    ]
    stop = Stop(12, 1e-8)
    with counted() as transfers:
        together = conjugate_gradients_on_each(systems, stop)
    assert sum(transfers.reads.values()) == 12
    alone = [conjugate_gradients(product, system, stop) for product, system in systems]
    for one, other in zip(together, alone, strict=True):
        assert (one.status, one.statistics) == (other.status, other.statistics)
        assert torch.equal(one.x, other.x)
    assert [solution.status for solution in together] == [
        Status.SOLVED, Status.LIMIT, Status.NEGATIVE_CURVATURE, Status.SOLVED, Status.NOT_FINITE,
    ]  # fmt: skip
    assert conjugate_gradients_on_each([], stop) == []
