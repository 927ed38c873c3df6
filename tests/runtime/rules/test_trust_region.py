"""Minimisers in a ball against brute force, and the rule that proposes and judges steps."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import newtriton as nt
from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.rules.trust_region import CASES, Proposal, TrustRegion, minimise_in_ball
from newtriton.runtime.vectors import Vectors

from ..parts.points import Point, draw

EPS = torch.finfo(torch.float64).eps


def hides(change: float) -> bool:
    return change <= 20 * EPS


Matrix = NDArray[np.float64]


def model_at(slope: Matrix, curvature: Matrix, c: Matrix) -> Matrix:
    """The model at the rows of c."""
    return c @ slope + 0.5 * np.einsum("ni,ij,nj->n", c, curvature, c)


def grid(k: int, metric: Matrix, radius: float) -> Matrix:
    """Points of the ball, its surface included: rows of coefficients."""
    if k == 1:
        points = np.linspace(-1, 1, 10_001)[:, None]
    elif k == 2:
        angle, length = np.meshgrid(np.linspace(0, 2 * np.pi, 721), np.linspace(0, 1, 101))
        points = np.stack([np.cos(angle), np.sin(angle)], -1) * length[..., None]
    else:
        points = np.random.default_rng(0).standard_normal((100_000, k))
        points /= np.linalg.norm(points, axis=1, keepdims=True)
        points *= np.random.default_rng(1).random((len(points), 1)) ** 0.2
    root = np.linalg.cholesky(metric)
    return radius * points.reshape(-1, k) @ np.linalg.inv(root)


def assert_minimal(slope: Matrix, curvature: Matrix, metric: Matrix, radius: float) -> Matrix:
    """Inside the ball, nothing on the grid is lower, and the grid comes close."""
    c = minimise_in_ball(slope, curvature, metric, radius)
    assert math.sqrt(c @ metric @ c) <= radius * (1 + 1e-9)
    value = float(model_at(slope, curvature, c[None])[0])
    values = model_at(slope, curvature, grid(len(slope), metric, radius))
    scale = np.abs(values).max()
    assert value <= values.min() + 1e-9 * scale
    assert value >= values.min() - (1e-3 if len(slope) < 3 else 0.1) * scale
    return c


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("radius", [0.1, 3.0])
def test_minimises_over_the_ball(k, seed, radius):
    random = np.random.default_rng(seed)
    slope, m = random.standard_normal(k), random.standard_normal((k, k))
    curvature = m + m.T + (seed % 3 - 1) * 2 * np.eye(k)
    root = random.standard_normal((k, k)) + 2 * np.eye(k)
    assert_minimal(slope, curvature, root @ root.T, radius)


@pytest.mark.parametrize("seed", range(4))
def test_minimises_over_three_directions(seed):
    random = np.random.default_rng(seed)
    m = random.standard_normal((3, 3))
    assert_minimal(random.standard_normal(3), m + m.T, np.eye(3), 1.0)


@pytest.mark.parametrize(
    ("slope", "values", "radius", "length"),
    [
        ((1.0, 1.0), (1.0, 2.0), 9.0, math.hypot(1, 0.5)),  # inside
        ((1.0, 1.0), (1.0, 2.0), 0.5, 0.5),  # on the boundary
        ((0.0, 1.0), (-1.0, 2.0), 2.0, 2.0),  # the hard case
        ((0.0, 1.0), (-1.0, 2.0), 0.1, 0.1),  # the same slope, yet short of the hard case
        ((1e-13, 1.0), (-1.0, 2.0), 2.0, 2.0),  # almost the hard case
        ((1.0, 1.0), (-2.0, -2.0), 2.0, 2.0),  # a repeated negative eigenvalue
        ((0.0, 0.0), (-1.0, 2.0), 2.0, 2.0),  # a saddle point
        ((0.0, 0.0), (1.0, 2.0), 2.0, 0.0),  # a minimum
        ((0.0, 1.0), (0.0, 2.0), 2.0, 0.5),  # singular, solvable
        ((1.0, 0.0), (0.0, 2.0), 2.0, 2.0),  # singular, not solvable
        ((1.0, 2.0), (0.0, 0.0), 2.0, 2.0),  # linear
    ],
)
@pytest.mark.parametrize("turn", [0.0, 0.7])
def test_minimisers_of_known_cases_are_found(slope, values, radius, length, turn):
    q = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    curvature = q @ np.diag(values) @ q.T
    c = assert_minimal(q @ np.array(slope), (curvature + curvature.T) / 2, np.eye(2), radius)
    assert np.linalg.norm(c) == pytest.approx(length, rel=1e-3, abs=1e-9)


@pytest.mark.parametrize("scale", [1e-150, 1e-12, 1e12, 1e150])
def test_scales_of_the_model_do_not_matter(scale):
    slope, curvature = np.array([1.0, -2.0]), np.array([[1.0, 3.0], [3.0, -1.0]])
    c = minimise_in_ball(slope, curvature, np.eye(2), 1.5)
    scaled = minimise_in_ball(scale * slope, scale * curvature, np.eye(2), 1.5)
    np.testing.assert_allclose(scaled, c, rtol=1e-6)


def test_dependent_directions_are_dropped():
    slope, curvature, metric = np.ones(2), 2 * np.ones((2, 2)), np.ones((2, 2))
    c = minimise_in_ball(slope, curvature, metric, 9.0)
    assert c.sum() == pytest.approx(-0.5)


class Lin:
    """h = gᵀs + ½ sᵀHs around the origin."""

    def __init__(self, gradient: Tensor, hessian: Tensor) -> None:
        self.gradient, self.hessian, self.seen = gradient, hessian, []
        self.vectors = Vectors()

    def quadratic_forms(self, vs: list[Tensor], curvature: str) -> Tensor:
        assert curvature == "hessian"
        self.seen += vs
        v = torch.stack(list(vs))
        return v @ self.hessian @ v.T

    def model(self, s: Tensor) -> float:
        return float(self.gradient @ s + 0.5 * s @ self.hessian @ s)


def random_lin(seed: int, n: int = 6, shift: float = 0.0) -> tuple[Lin, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    m = draw(n, n)
    return Lin(draw(n), m + m.T + shift * torch.eye(n)), draw(n)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("case", ["kfac", "kfac+gradient", "subspace"])
def test_proposes_the_best_point_of_its_case(case, seed):
    lin, r = random_lin(seed, shift=seed - 3.0)
    radius = 0.7
    proposal = TrustRegion(radius, case=case).propose(r, lin)
    assert proposal.norm == pytest.approx(float(proposal.step.norm()))
    assert proposal.norm <= radius * (1 + 1e-12)
    assert proposal.predicted == pytest.approx(-lin.model(proposal.step), rel=1e-9)
    r, g = r / r.norm(), lin.gradient / lin.gradient.norm()
    along = torch.linspace(-radius, radius, 20_001, dtype=torch.float64)[:, None]
    points = along * r
    if case == "kfac+gradient":
        points = torch.cat([points, along * g])
    if case == "subspace":
        q, _ = torch.linalg.qr(torch.stack([r, g], 1))
        points = torch.from_numpy(grid(2, np.eye(2), radius)) @ q.T
    values = points @ lin.gradient + 0.5 * ((points @ lin.hessian) * points).sum(1)
    assert -proposal.predicted <= float(values.min()) + 1e-12
    assert -proposal.predicted >= float(values.min()) - 1e-3 * abs(float(values.min()))


def test_directions_reach_the_forms_at_unit_length():
    lin, r = random_lin(0)
    step = TrustRegion(1.0, case="subspace").propose(1e6 * r, lin).step
    assert [float(v.norm()) for v in lin.seen] == pytest.approx([1.0, 1.0])
    torch.testing.assert_close(TrustRegion(1.0, case="subspace").propose(r, lin).step, step)


def test_negative_curvature_goes_downhill_to_the_boundary():
    lin, r = random_lin(1, shift=-20.0)
    proposal = TrustRegion(0.5).propose(r, lin)
    assert proposal.norm == pytest.approx(0.5)
    assert float(lin.gradient @ proposal.step) < 0


@pytest.mark.parametrize("curvature", [1.0, -1.0])
def test_no_slope_no_step(curvature):
    g, r = torch.tensor([1.0, 0.0]).double(), torch.tensor([0.0, 1.0]).double()
    lin = Lin(g, curvature * torch.eye(2, dtype=torch.float64))
    proposal = TrustRegion(1.0).propose(r, lin)
    assert not proposal.step.any()
    assert proposal.predicted == proposal.norm == 0.0
    for zero in (0 * g, 0 * r):
        assert (
            not TrustRegion(1.0, case="subspace").propose(zero, Lin(0 * g, lin.hessian)).step.any()
        )


def test_nearly_parallel_float32_directions_keep_their_noise_out():
    g = torch.tensor([1.0, 0.0, 0.0])
    r = torch.tensor([1.0, 1e-4, 0.0])  # forms of float32 say nothing about the difference
    lin = Lin(g, torch.eye(3))
    exact = lin.quadratic_forms
    noise = 1e-7 * torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    lin.quadratic_forms = lambda vs, curvature: exact(vs, curvature) + noise
    proposal = TrustRegion(9.0, case="subspace").propose(r, lin)
    torch.testing.assert_close(proposal.step, -g, rtol=0, atol=2e-4)
    assert proposal.predicted == pytest.approx(0.5, rel=1e-3)


def carrying(last: Tensor, radius: float = 5.0) -> TrustRegion:
    """A rule with momentum ½ whose last accepted step is given."""
    rule = TrustRegion(radius, momentum=0.5)
    rule.judge(1.0, 0.5, Proposal(last, float(last.norm()), 0.5), hides)
    return rule


def test_momentum_adds_the_last_accepted_step():
    lin, r = random_lin(2, shift=9.0)
    plain = TrustRegion(5.0).propose(r, lin).step
    last = 0.1 * plain + 0.01 * r.roll(1)
    proposal = carrying(last).propose(r, lin)
    torch.testing.assert_close(proposal.step, plain + 0.5 * last)
    assert proposal.predicted == pytest.approx(-lin.model(proposal.step))
    assert proposal.norm == pytest.approx(float(proposal.step.norm()))


def test_momentum_stays_in_the_ball():
    lin, r = random_lin(2, shift=-9.0)
    plain = TrustRegion(0.3).propose(r, lin).step
    proposal = carrying(plain, 0.3).propose(r, lin)
    assert proposal.norm == pytest.approx(0.3)
    assert float(proposal.step.norm()) == pytest.approx(0.3)


def test_momentum_that_would_go_uphill_is_left_out():
    lin, r = random_lin(2, shift=9.0)
    plain = TrustRegion(5.0).propose(r, lin)
    proposal = carrying(-9 * plain.step).propose(r, lin)
    assert torch.equal(proposal.step, plain.step)
    assert proposal.predicted == plain.predicted > 0


def test_momentum_keeps_its_step_through_a_rejection_and_a_step_of_zero():
    last = torch.tensor([1.0, 2.0]).double()
    rule = carrying(last)
    rule.judge(1.0, 2.0, Proposal(0 * last + 3, 1.0, 0.5), hides)
    rule.judge(1.0, 1.0, Proposal(0 * last, 0.0, 0.0), hides)
    assert torch.equal(rule.last, last)


@pytest.mark.parametrize(
    ("rho", "accepted", "radius"),
    [
        (1.5, True, 2.0),
        (0.75, True, 2.0),
        (0.7, True, 1.0),
        (0.25, True, 1.0),
        (0.2, False, 0.5),
        (-3.0, False, 0.5),
    ],
)
def test_the_radius_follows_rho(rho, accepted, radius):
    rule = TrustRegion(8.0, initial_radius=1.0)
    step = Proposal(torch.ones(1), 1.0, predicted=2.0)
    assert rule.judge(10.0, 10.0 - 2.0 * rho, step, hides) == (accepted, pytest.approx(rho))
    assert rule.radius == radius


def test_the_radius_has_limits():
    rule = TrustRegion(1.5, initial_radius=1.0, min_radius=0.4)
    step = Proposal(torch.ones(1), 1.0, predicted=1.0)
    rule.judge(10.0, 9.0, step, hides)
    assert rule.radius == 1.5
    seen = [(rule.judge(10.0, 11.0, step, hides), rule.radius)[1] for _ in range(3)]
    assert seen == [0.75, 0.4, 0.4]


def test_a_change_below_rounding_says_nothing():
    rule, step = TrustRegion(4.0, initial_radius=1.0), torch.ones(1)
    below, above = 19 * EPS, 21 * EPS
    for actual in (-10 * EPS, 0.0):
        assert rule.judge(1.0, 1.0 - actual, Proposal(step, 1.0, below), hides) == (True, None)
        assert rule.radius == 1.0
    assert not rule.judge(1.0, 1.0, Proposal(step, 1.0, above), hides)[0]
    assert not rule.judge(1.0, 1.0 + above, Proposal(step, 1.0, below), hides)[0]
    assert rule.radius == 0.25


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_rejected(bad):
    step = Proposal(torch.ones(1), 1.0, predicted=1.0)
    for new_loss, proposal in ((bad, step), (0.0, Proposal(step.step, 1.0, bad))):
        rule = TrustRegion(1.0)
        assert rule.judge(1.0, new_loss, proposal, hides) == (False, -math.inf)
        assert rule.radius == 0.5


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_forms_or_a_direction_that_are_not_finite_propose_no_step(bad):
    lin, r = random_lin(0)
    for direction, hessian in ((r, bad * lin.hessian), (bad * r, lin.hessian)):
        proposal = TrustRegion(1.0, case="subspace").propose(direction, Lin(lin.gradient, hessian))
        assert not proposal.step.any()
        assert math.isnan(proposal.predicted)


def test_reject_below_is_apart_from_the_radius():
    rule = TrustRegion(1.0, reject_below=1e-4)
    step = Proposal(torch.ones(1), 1.0, predicted=1.0)
    assert rule.judge(1.0, 0.9, step, hides)[0]
    assert rule.radius == 0.5
    assert not rule.judge(1.0, 1.0, step, hides)[0]


def test_a_rejected_step_inside_a_relative_ball_comes_back_at_most_half_as_long():
    step = Proposal(torch.ones(1), 1.0, predicted=1.0, along=0.01)
    for rule, radius in ((TrustRegion(None), 0.005), (TrustRegion(1.0), 0.5)):
        assert not rule.judge(1.0, 1.0, step, hides)[0]
        assert rule.radius == radius
    accepting = TrustRegion(None, reject_below=0.0)
    assert accepting.judge(1.0, 0.9, step, hides)[0]
    assert accepting.radius == 0.5


def test_state_round_trip():
    rule = carrying(torch.tensor([1.0, 2.0]))
    rule.tighten()
    other = TrustRegion(5.0, momentum=0.5)
    state = rule.state_dict()
    other.load_state_dict(state)
    assert other.radius == rule.radius == 2.5
    assert torch.equal(other.last, rule.last)
    assert other.last is not rule.last


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"case": "gradient"}, "gradient"),
        ({"max_radius": 0.0}, "radii"),
        ({"max_radius": math.inf}, "max_radius is inf"),
        ({"initial_radius": 2.0}, "radii"),
        ({"initial_radius": math.nan}, "initial_radius is nan"),
        ({"momentum": 1.0}, "momentum"),
        ({"reject_below": -0.1}, "reject_below"),
        ({"reject_below": 0.9}, "reject_below"),
    ],
)
def test_refuses_options(options, named):
    with pytest.raises(NewtritonError, match=named):
        TrustRegion(**options)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_the_minimiser_has_the_certificate_of_a_global_one(k: int) -> None:
    """(H + λM)c = −b with λ ≥ 0, H + λM ⪰ 0, and λ = 0 inside the ball (Moré & Sorensen)."""
    random = np.random.default_rng(k)
    inside = 0
    for n in range(100):
        slope, m = random.standard_normal(k), random.standard_normal((k, k))
        curvature = m + m.T + k * random.integers(-2, 4) * np.eye(k)
        root = random.standard_normal((k, k)) + 2 * np.eye(k)
        metric, radius = root @ root.T, float(10.0 ** random.uniform(-2, 1))
        if n % 3 == 0:  # no slope along the lowest curvature: the hard case, where it is negative
            inverse = np.linalg.inv(root)
            _, q = np.linalg.eigh(inverse @ curvature @ inverse.T)
            slope -= root @ q[:, 0] * (q[:, 0] @ inverse @ slope)
        c = minimise_in_ball(slope, curvature, metric, radius)
        residual, toward = slope + curvature @ c, metric @ c
        shift = -float(residual @ c) / max(float(toward @ c), 1e-300)
        scale = float(np.abs(curvature).sum() + np.abs(slope).sum() / radius)
        assert np.abs(residual + shift * toward).max() <= 1e-6 * (
            np.abs(slope).max() + scale * 1e-3
        )
        assert shift >= -1e-8 * scale
        assert np.linalg.eigvalsh(curvature + shift * metric).min() >= -1e-6 * scale
        length = math.sqrt(float(c @ metric @ c))
        assert length <= radius * (1 + 1e-9)
        inside += length < 0.999 * radius
        assert length >= 0.999 * radius or abs(shift) <= 1e-8 * scale
    assert 5 < inside < 95


@functools.cache
def linearized(seed: int) -> tuple[nt.Linearization, Tensor]:
    """A network with batch norm and weight decay, and a direction that is no eigenvector."""
    net = nt.Sequential(
        *(nt.Conv2d(3, 3), nt.BatchNorm2d(), nt.SiLU(), nt.Flatten(), nt.Linear(3)),
    )
    options = {"dtype": torch.float64, "weight_decay": 0.1, "seed": seed}
    model = nt.compile(net, (1, 5, 5), nt.CrossEntropyLoss(), **options)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(8, 1, 5, 5, generator=generator, dtype=torch.float64)
    lin = model.linearize(x, torch.arange(8) % 3)
    noise = torch.randn(len(lin.gradient), generator=generator, dtype=torch.float64)
    return lin, lin.gradient + 0.1 * noise


def model_of(lin: nt.Linearization, s: Tensor) -> float:
    return float(lin.gradient @ s + 0.5 * s @ lin.hvp(s))


@pytest.mark.parametrize("radius", [0.05, 50.0])
@pytest.mark.parametrize("seed", range(3))
def test_on_a_network_a_wider_search_is_never_worse(seed: int, radius: float) -> None:
    lin, r = linearized(seed)
    proposals = {case: TrustRegion(radius, case=case).propose(r, lin) for case in CASES}
    for proposal in proposals.values():
        expected = -model_of(lin, proposal.step)
        assert proposal.predicted == pytest.approx(expected, rel=1e-9)
        assert proposal.norm <= radius * (1 + 1e-9)
    values = [proposals[case].predicted for case in CASES]
    assert 0 < values[0] <= values[1] * (1 + 1e-12)
    assert values[1] < values[2]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("radius", [0.05, 50.0])
def test_on_a_network_momentum_is_predicted_by_the_full_model(case: str, radius: float) -> None:
    lin, r = linearized(0)
    plain = TrustRegion(radius, case=case).propose(r, lin)
    last = 0.05 * plain.step.roll(1) + plain.step
    rule = TrustRegion(radius, case=case, momentum=0.5)
    rule.last = last
    proposal = rule.propose(r, lin)
    carried = plain.step + 0.5 * last
    carried = carried * min(1.0, radius / float(carried.norm()))
    torch.testing.assert_close(proposal.step, carried, rtol=1e-9, atol=1e-12)
    assert proposal.predicted == pytest.approx(-model_of(lin, carried), rel=1e-9)


def test_a_radius_that_nobody_gives_is_measured_in_the_solvers_own_step() -> None:
    lin, r = random_lin(1, shift=-20.0)
    rule = TrustRegion(None)
    assert rule.relative
    for c in (1.0, 1e6, 1e-6):
        proposal = rule.propose(c * r, lin)
        assert proposal.norm == pytest.approx(c * float(r.norm()))
        assert abs(proposal.along) == pytest.approx(1.0)
    rule.judge(1.0, 2.0, Proposal(r, 1.0, 0.5), hides)
    assert rule.radius == 0.5
    assert rule.propose(r, lin).norm == pytest.approx(0.5 * float(r.norm()))
    for _ in range(3):
        rule.judge(1.0, 0.5, Proposal(r, 1.0, 0.5), hides)
    assert rule.radius == 1.0, "never more than the solver's step"


@pytest.mark.parametrize("case", CASES)
def test_a_proposal_says_how_far_it_goes_along_the_direction(case: str) -> None:
    lin, r = random_lin(2, shift=9.0)
    for sign in (1.0, -1.0):
        proposal = TrustRegion(5.0, case=case).propose(sign * r, lin)
        rest = proposal.step + proposal.along * sign * r
        g = lin.gradient / lin.gradient.norm()
        torch.testing.assert_close(rest - g * (g @ rest), 0 * rest, rtol=0, atol=1e-12)
        assert proposal.slope == pytest.approx(float(lin.gradient @ proposal.step))
        assert proposal.uphill == (float(lin.gradient @ (sign * r)) < 0.0)


def test_the_model_may_be_that_of_the_gauss_newton_matrix() -> None:
    point, r = Point(), draw(1)
    proposal = TrustRegion(50.0, model="ggn").propose(r, point)
    bent = float(r @ point.curvatures["ggn"] @ r)
    torch.testing.assert_close(proposal.step, -r * float(point.gradient @ r) / bent)
    with pytest.raises(NewtritonError, match="model is 'fisher'"):
        TrustRegion(model="fisher")


@pytest.mark.parametrize(("bounded", "radius"), [(True, 0.5), (False, 0.25)])
def test_a_step_too_short_to_be_judged_lets_the_radius_that_bounds_it_grow(
    bounded: bool, radius: float
) -> None:
    rule = TrustRegion(1.0, initial_radius=0.25)
    proposal = Proposal(torch.ones(1), 1e-9, 1e-18, bounded=bounded)
    assert rule.judge(1.0, 1.0, proposal, hides) == (True, None)
    assert rule.radius == radius
