"""Levenberg and Marquardt's damping, and the line search."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.parts.protocols import Proposal
from newtriton.runtime.rules.line_search import LevenbergMarquardt

from ..parts.points import Point, judged


def searched(rule: LevenbergMarquardt, point: Point, x: Tensor, h) -> tuple[Proposal, float]:
    """The proposal at which the search ends, and the loss there."""
    proposal = rule.propose(x, point)
    while (shorter := rule.shorten(h(torch.zeros_like(x)), h(proposal.step), proposal)) is not None:
        proposal = shorter
    return proposal, h(proposal.step)


def test_backtracks_to_the_first_sufficient_decrease() -> None:
    rule, point = LevenbergMarquardt(), Point()
    x = 30 * torch.linalg.solve(point.curvatures["ggn"], point.gradient)
    proposal, loss = searched(rule, point, x, point.model)
    slope = -float(point.gradient @ x)
    alphas = [0.5**k for k in range(21)]
    good = [a for a in alphas if point.model(-a * x) <= 1e-4 * a * slope]
    assert proposal.halvings == alphas.index(good[0]) > 0
    torch.testing.assert_close(proposal.step, -good[0] * x)
    assert proposal.predicted == pytest.approx(-point.model(proposal.step))
    assert proposal.norm == pytest.approx(float(proposal.step.norm()))
    assert judged(rule, 0.0, loss, proposal) == (True, pytest.approx(1.0))


def test_a_line_search_that_finds_nothing_is_rejected_and_boosts() -> None:
    rule, point = LevenbergMarquardt(halvings=6), Point()
    uphill = lambda s: float(s.norm())  # noqa: E731
    x = torch.linalg.solve(point.curvatures["ggn"], point.gradient)
    proposal, loss = searched(rule, point, x, uphill)
    assert proposal.halvings == 6
    accepted, rho = judged(rule, 0.0, loss, proposal)
    assert not accepted
    assert rho is not None
    assert rho < 0
    assert rule.adapt(2.0, rho) == 3.0


def test_a_raised_loss_is_refused_however_small_the_slope_is_after_the_search() -> None:
    rule = LevenbergMarquardt()
    proposal = Proposal(torch.ones(2), 1.0, predicted=1e-22, slope=-1e-22, halvings=20)
    assert not judged(rule, 1.0, 20.0, proposal)[0]
    assert not judged(rule, 1.0, 1.0 + 1e-12, proposal)[0]
    assert judged(rule, 1.0, 1.0, proposal) == (True, None)


def test_refusals_raise_lambda_ever_faster_and_good_steps_take_that_back() -> None:
    rule, damping, found = LevenbergMarquardt(boost=2.0, drop=0.5), 0.0, []
    step = Proposal(torch.ones(2), 1.0, predicted=1.0, slope=-2.0)
    for new_loss in (2.0, math.nan, 2.0, 0.0, 0.0, 0.0):
        _, rho = judged(rule, 1.0, new_loss, step)
        damping = rule.adapt(damping, rho)
        found.append(damping / 1e-8)
    assert found == pytest.approx([2, 8, 128, 128**0.5 / 2, 128**0.25 / 4, 1 / 8])
    rule.tighten()
    assert rule.adapt(3.0, -math.inf) == 6.0


def test_a_direction_uphill_is_rejected_without_a_search() -> None:
    rule, point = LevenbergMarquardt(), Point()
    proposal = rule.propose(-point.gradient, point)
    assert rule.shorten(0.0, 5.0, proposal) is None
    assert not judged(rule, 0.0, 5.0, proposal)[0]


@pytest.mark.parametrize(
    ("rho", "expected"), [(0.9, 2.0), (0.75, 3.0), (0.25, 3.0), (0.1, 4.5), (-math.inf, 4.5)]
)
def test_lambda_follows_rho_at_each_step(rho: float, expected: float) -> None:
    assert LevenbergMarquardt().adapt(3.0, rho) == pytest.approx(expected)


def test_a_loss_that_is_not_finite_is_searched_away_from() -> None:
    rule, point = LevenbergMarquardt(), Point()
    proposal = rule.propose(torch.linalg.solve(point.curvatures["ggn"], point.gradient), point)
    shorter = rule.shorten(0.0, math.nan, proposal)
    assert shorter is not None
    assert shorter.halvings == 1
    assert not judged(rule, 0.0, math.nan, replace(shorter, halvings=20))[0]


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: LevenbergMarquardt("fisher"), "model is 'fisher'"),
        (lambda: LevenbergMarquardt(sufficient=0.0), r"sufficient is 0\.0"),
        (lambda: LevenbergMarquardt(halvings=-1), "halvings is -1"),
        (lambda: LevenbergMarquardt(drop=1.0), r"drop is 1\.0"),
        (lambda: LevenbergMarquardt(boost=1.0), r"boost is 1\.0"),
    ],
)
def test_refuses_options(make, named: str) -> None:
    with pytest.raises(NewtritonError, match=named):
        make()
