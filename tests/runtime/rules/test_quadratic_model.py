"""The quadratic model of K-FAC and KFRA against dense algebra."""

from __future__ import annotations

import math

import pytest
import torch

from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.parts.protocols import Proposal
from newtriton.runtime.rules.line_search import LevenbergMarquardt
from newtriton.runtime.rules.quadratic_model import QuadraticModel

from ..parts.points import Point, draw, judged
from ..stand_in import assert_identical, positive


@pytest.mark.parametrize("model", ["ggn", "hessian"])
def test_goes_along_the_direction_to_the_models_minimum(model: str) -> None:
    """KFRA, eqs. 40 and 41: α* = −δᵀ∇f / δᵀC̄δ."""
    rule, point, delta = QuadraticModel(0.7, momentum=False, model=model), Point(), draw(1)
    c = point.curvatures[model] + 0.7 * torch.eye(8, dtype=torch.float64)
    alpha = -float(delta @ point.gradient) / float(delta @ c @ delta)
    proposal = rule.propose(delta, point)
    torch.testing.assert_close(proposal.step, alpha * delta)
    assert proposal.predicted == pytest.approx(-point.model(proposal.step, 0.7, model))
    assert proposal.norm == pytest.approx(float(proposal.step.norm()))
    judged(rule, 0.0, -proposal.predicted, proposal)
    assert rule.last is None


def test_momentum_is_the_minimum_over_the_direction_and_the_last_step() -> None:
    rule, point = QuadraticModel(0.7), Point()
    first = rule.propose(draw(1), point)
    judged(rule, 0.0, -first.predicted, first)
    delta = draw(3)
    proposal = rule.propose(delta, point)
    c = point.curvatures["ggn"] + 0.7 * torch.eye(8, dtype=torch.float64)
    span = torch.stack([-delta, first.step], 1)
    coefficients = torch.linalg.solve(span.T @ c @ span, -span.T @ point.gradient)
    torch.testing.assert_close(proposal.step, span @ coefficients)
    assert proposal.predicted == pytest.approx(-point.model(proposal.step, 0.7))
    parallel = rule.propose(-2.0 * first.step, point)
    torch.testing.assert_close(parallel.step, first.step, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("longer", [False, True])
def test_the_last_step_is_repeated_once_at_most_and_never_taken_back(longer: bool) -> None:
    rule, point = QuadraticModel(0.7), Point()
    best = -torch.linalg.solve(
        point.curvatures["ggn"] + 0.7 * torch.eye(8, dtype=torch.float64), point.gradient
    )
    rule.last = 0.1 * best if longer else -best
    proposal = rule.propose(delta := draw(3), point)
    rest = proposal.step - (rule.last if longer else 0.0)
    alpha = float(rest @ delta) / float(delta @ delta)
    torch.testing.assert_close(rest, alpha * delta)
    assert proposal.predicted == pytest.approx(-point.model(proposal.step, 0.7))
    for other in (0.99, 1.01):
        step = proposal.step + (other - 1.0) * alpha * delta
        assert -point.model(step, 0.7) < proposal.predicted


def test_a_step_that_raises_the_loss_is_refused_and_raises_lambda() -> None:
    rule, point = QuadraticModel(2.0), Point()
    proposal = rule.propose(draw(1), point)
    assert judged(rule, 3.0, 3.0 + proposal.predicted, proposal) == (False, pytest.approx(-1.0))
    assert rule.damping >= 2.0 / 0.95**5
    assert rule.last is None


def test_a_refusal_fits_lambda_to_the_loss_it_has_seen() -> None:
    rule, point = QuadraticModel(2.0, momentum=False), Point()
    first = rule.propose(draw(1), point)
    rise = 5.0 * first.predicted
    judged(rule, 3.0, 3.0 + rise, first)
    assert point.model(first.step, rule.damping) == pytest.approx(rise)


def test_refusals_raise_lambda_ever_faster_and_good_steps_take_that_back() -> None:
    rule, point, base = QuadraticModel(2.0, every=5), Point(), 0.95**-5
    proposal = rule.propose(draw(1), point)
    for n in (1, 3, 7, 15):
        judged(rule, 3.0, math.inf, proposal)
        assert rule.damping == pytest.approx(2.0 * base**n)
    for n in (7.5, 3.75, 1.875, 0, 0):
        judged(rule, 3.0, 3.0 - proposal.predicted, proposal)
        assert rule.damping == pytest.approx(2.0 * base**n)
    judged(rule, 3.0, 3.0 - proposal.predicted, proposal)
    assert rule.damping == pytest.approx(2.0 * base**-1), "at every fifth step"


def test_gamma_grows_where_no_step_could_be_made_and_comes_back() -> None:
    rule, point, base, gamma = QuadraticModel(2.0), Point(), 0.95**-5, 0.3
    for n in (1, 3, 7):
        rule.tighten()
        gamma = rule.adapt(gamma, -math.inf)
        assert gamma == pytest.approx(0.3 * base**n)
    proposal = rule.propose(draw(1), point)
    for n in (3.5, 1.75, 0, 0):
        gamma = rule.adapt(gamma, judged(rule, 3.0, 3.0 - proposal.predicted, proposal)[1])
        assert gamma == pytest.approx(0.3 * base**n)
    assert rule.adapt(gamma, 0.5) == rule.adapt(gamma, None) == gamma


@pytest.mark.parametrize(("ratio", "factor"), [(0.9, 0.95**5), (0.5, 1.0), (0.1, 0.95**-5)])
def test_lambda_follows_rho_every_fifth_step(ratio: float, factor: float) -> None:
    rule, point = QuadraticModel(2.0, momentum=False), Point()
    for step in range(1, 11):
        proposal = rule.propose(draw(1), point)
        accepted, rho = judged(rule, 3.0, 3.0 - ratio * proposal.predicted, proposal)
        assert accepted
        assert rho == pytest.approx(ratio)
        assert rule.damping == pytest.approx(2.0 * factor ** (step // 5))


def test_gamma_has_neighbours_every_twentieth_step() -> None:
    rule, point = QuadraticModel(2.0), Point()
    omega, tried = 0.95**20, []
    for _ in range(41):
        tried.append(rule.dampings(3.0))
        judged(rule, 3.0, 2.0, rule.propose(draw(1), point))
    several = [step for step, dampings in enumerate(tried) if len(dampings) > 1]
    assert several == [20, 40]
    assert tried[20] == pytest.approx((3.0, 3.0 * omega, 3.0 / omega))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_model_or_loss_that_is_not_finite_is_rejected_and_raises_lambda(bad: float) -> None:
    rule, point = QuadraticModel(2.0), Point()
    proposal = rule.propose(draw(1), point)
    assert judged(rule, 1.0, bad, proposal) == (False, -math.inf)
    assert rule.damping == pytest.approx(2.0 / 0.95**5)
    broken = Point(ggn=bad * positive(8))
    proposal = rule.propose(draw(1), broken)
    assert not proposal.step.any()
    assert judged(rule, 1.0, 0.5, proposal) == (False, -math.inf)


def test_a_model_without_a_minimum_is_rejected() -> None:
    rule, point = QuadraticModel(0.0), Point(ggn=-positive(8))
    proposal = rule.propose(draw(1), point)
    assert math.isnan(proposal.predicted)
    assert judged(rule, 1.0, 0.5, proposal) == (False, -math.inf)
    assert rule.damping > 0.0, "λ = 0 could not grow by a factor"


def test_a_direction_of_zeros_stays_where_it_is() -> None:
    for rule in (QuadraticModel(), LevenbergMarquardt()):
        proposal = rule.propose(torch.zeros(8, dtype=torch.float64), Point())
        assert (proposal.norm, proposal.predicted) == (0.0, 0.0)
        assert judged(rule, 1.0, 1.0, proposal)[0]


def test_a_state_is_restored() -> None:
    rule, point = QuadraticModel(3.0), Point()
    judged(rule, 1.0, 0.5, rule.propose(draw(1), point))
    state = rule.state_dict()
    again = QuadraticModel()
    again.load_state_dict(state)
    assert_identical(again.state_dict(), state)
    assert again.last is not rule.last


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: QuadraticModel(-1.0), r"damping is -1\.0"),
        (lambda: QuadraticModel(momentum=0.9), r"momentum is 0\.9"),  # type: ignore[arg-type]
        (lambda: QuadraticModel(model="fisher"), "model is 'fisher'"),
        (lambda: QuadraticModel(every=0), "every is 0"),
        (lambda: QuadraticModel(greedy=1.5), r"greedy is 1\.5"),  # type: ignore[arg-type]
    ],
)
def test_refuses_options(make, named: str) -> None:
    with pytest.raises(NewtritonError, match=named):
        make()


@pytest.mark.parametrize("rule", [QuadraticModel(1.0), LevenbergMarquardt()])
def test_steps_too_short_to_be_judged_take_back_what_refusals_have_raised(rule) -> None:
    proposal, gamma = Proposal(torch.ones(1), 1e-9, 1e-18, slope=-1e-18), 1.0
    for _ in range(8):
        rule.tighten()
        gamma = rule.adapt(gamma, -math.inf)
    assert gamma > 1e3
    for _ in range(20):
        assert rule.judge(1.0, 1.0, proposal, lambda change: True) == (True, None)
        gamma = rule.adapt(gamma, None)
    assert gamma == pytest.approx(1.0)
    assert rule.raised == 1.0


def test_steps_that_make_a_factor_of_zero_are_refused() -> None:
    for name in ("every", "greedy"):
        with pytest.raises(NewtritonError, match=f"{name} is 2147483647"):
            QuadraticModel(**{name: 2**31 - 1})  # type: ignore[arg-type]
