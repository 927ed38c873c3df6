"""What step rules share: defaults that change nothing, geometry of directions, the ratio ρ."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from newtriton.runtime.parts.protocols import Proposal
from newtriton.runtime.rules.fixed import Fixed
from newtriton.runtime.rules.line_search import LevenbergMarquardt
from newtriton.runtime.rules.quadratic_model import QuadraticModel
from newtriton.runtime.rules.rule import Rule, along, reduction_ratio
from newtriton.runtime.rules.trust_region import TrustRegion
from newtriton.runtime.vectors import Vectors

from ..parts.points import Point, draw, judged
from ..transfers import counted


@pytest.mark.parametrize(
    ("new_loss", "predicted", "rho"),
    [
        (3.0, 2.0, 0.5),
        (5.0, 2.0, -0.5),
        (math.inf, 2.0, -math.inf),
        (3.0, math.nan, -math.inf),
        (4.0, 0.0, None),  # both are rounding error
        (4.0 + 1e-15, 1e-15, None),
        (4.0, 4e-15, 0.0),
        (5.0, 0.0, -math.inf),
        (3.0, 0.0, math.inf),
    ],
)
def test_the_ratio_of_actual_to_predicted_decrease(
    new_loss: float, predicted: float, rho: float | None
) -> None:
    assert reduction_ratio(4.0, new_loss, predicted, lambda change: change <= 2e-15) == rho


def test_rounding_is_not_asked_for_where_the_decreases_agree() -> None:
    def asked(change: float) -> bool:
        raise AssertionError

    assert reduction_ratio(4.0, 3.0, 1.25, asked) == 0.8
    assert reduction_ratio(4.0, 3.0, 4.0, asked) == 0.25
    with pytest.raises(AssertionError):
        reduction_ratio(4.0, 4.5, 1.0, asked)


def test_norms_slopes_and_cosines_along_directions() -> None:
    gradient = torch.tensor([1.0, -2.0, 2.0])
    point: Any = SimpleNamespace(vectors=Vectors(), gradient=gradient)
    u, v = torch.tensor([3.0, 4.0, 0.0]), torch.tensor([0.0, 0.0, -2.0])
    norms, slopes, cosines = along([u, v, gradient], point)
    assert norms.tolist() == [5.0, 2.0, 3.0]
    assert slopes.tolist() == pytest.approx([-1.0, -2.0, 3.0])
    assert cosines.diagonal().tolist() == pytest.approx([1.0] * 3)
    assert cosines[0, 1] == 0.0 and cosines[1, 2] == pytest.approx(-2 / 3)


def test_a_direction_of_length_zero_has_no_slope() -> None:
    point: Any = SimpleNamespace(vectors=Vectors(), gradient=torch.ones(2))
    norms, slopes, _ = along([torch.zeros(2)], point)
    assert norms[0] == 0.0 and math.isnan(slopes[0])


def test_a_plain_rule_keeps_its_damping_and_has_no_line_search() -> None:
    rule, proposal = Rule(), SimpleNamespace()
    nothing: Any = None
    assert rule.dampings(0.3) == (0.3,)
    assert rule.adapt(0.3, rho=0.01) == rule.adapt(0.3, rho=None) == 0.3
    assert rule.shorten(1.0, 2.0, proposal) is None  # type: ignore[arg-type]
    rule.tighten()
    assert dict(rule.state_spec(nothing)) == {} == dict(rule.state_dict())


@pytest.mark.parametrize("make", [TrustRegion, QuadraticModel, LevenbergMarquardt])
def test_proposals_after_a_survey_are_the_same_and_make_no_transfer(make: Any) -> None:
    point, directions = Point(), [draw(seed) for seed in range(3)]
    expected = [make().propose(direction, point) for direction in directions]
    rule = make()
    with counted() as transfers:
        rule.survey(directions, point)
        found = [rule.propose(direction, point) for direction in directions]
        assert sum(transfers.reads.values()) == 1
        rule.propose(directions[0], point)
        assert sum(transfers.reads.values()) == 2, "what was surveyed serves once"
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.step, other.step)
        assert (one.norm, one.predicted, one.slope) == (other.norm, other.predicted, other.slope)


@pytest.mark.parametrize("make", [lambda: TrustRegion(case="subspace"), QuadraticModel])
@pytest.mark.parametrize("scale", [1e290, -1e290, 1e307])
@pytest.mark.parametrize("apart", [1e2, 1e5])
@pytest.mark.filterwarnings("error")
def test_forms_that_overflow_in_the_span_make_a_refused_step(
    make: Any, scale: float, apart: float
) -> None:
    """Nearly dependent directions: forms are finite, and not on an orthonormal basis."""
    matrix = scale * torch.diag(torch.linspace(1.0, 9.0, 8, dtype=torch.float64))
    point, rule = Point(ggn=matrix, hessian=matrix), make()
    point.gradient[0] *= 1e8
    direction = point.gradient + apart * draw(1)
    rule.last = point.gradient.clone()
    proposal = rule.propose(direction, point)
    assert not proposal.step.any() or math.isfinite(proposal.predicted)


def test_a_loss_of_minus_infinity_is_refused() -> None:
    step = Proposal(torch.ones(2), 1.0, predicted=1.0, slope=-2.0)
    for rule in (TrustRegion(), QuadraticModel(), LevenbergMarquardt(), Fixed()):
        assert not judged(rule, 1.0, -math.inf, step)[0]


@pytest.mark.parametrize("surveyed", [False, True])
@pytest.mark.parametrize("momentum", [False, True])
def test_a_step_that_is_watched_changes_no_proposal(momentum: bool, surveyed: bool) -> None:
    """Its slope and form on the batch come with the first direction, in the same transfer."""
    rule, alone = (QuadraticModel(0.1, momentum=momentum) for _ in range(2))
    point = Point()
    rule.last = alone.last = draw(3) if momentum else None
    directions, earlier = [draw(1), draw(2)], draw(5)
    rule.watch(earlier)
    with counted() as transfers:
        if surveyed:
            rule.survey(directions, point)
        proposals = [rule.propose(direction, point) for direction in directions]
    assert sum(transfers.reads.values()) == (1 if surveyed else 2)
    for direction, found in zip(directions, proposals, strict=True):
        expected = alone.propose(direction, point)
        torch.testing.assert_close(found.step, expected.step)
        assert found.predicted == pytest.approx(expected.predicted)
        assert found.along == pytest.approx(expected.along)
    slope, form = rule.seen()  # type: ignore[misc]
    assert slope == pytest.approx(float(point.gradient @ earlier))
    assert form == pytest.approx(float(earlier @ point.curvatures["ggn"] @ earlier))
