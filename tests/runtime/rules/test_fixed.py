"""The rule of a fixed rate takes its step, with momentum where there is any."""

from __future__ import annotations

import math

import pytest
import torch

from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.rules.fixed import Fixed

from ..parts.points import Point, draw, judged
from ..stand_in import assert_identical


def test_the_fixed_rule_and_its_momentum() -> None:
    rule, point, x = Fixed(0.2, momentum=0.5), Point(), draw(1)
    first = rule.propose(x, point)
    torch.testing.assert_close(first.step, -0.2 * x)
    assert first.norm == pytest.approx(0.2 * float(x.norm()))
    assert first.predicted == pytest.approx(0.2 * float(point.gradient @ x))
    assert judged(rule, 1.0, 5.0, first) == (True, None)
    second = rule.propose(x, point)
    torch.testing.assert_close(second.step, -0.2 * x - 0.1 * x)
    for bad in (math.nan, math.inf):
        assert judged(rule, 1.0, bad, second) == (False, None)
        torch.testing.assert_close(rule.propose(x, point).step, -0.2 * x)


def test_a_step_that_raises_the_loss_may_be_refused_and_halves_the_rate() -> None:
    rule, point = Fixed(0.2, 0.5, refuse=True), Point()

    def judge(new_loss: float) -> bool:
        return judged(rule, 1.0, new_loss, rule.propose(draw(1), point))[0]

    for new_loss, accepted, lr in (
        *((1.5, False, 0.1), (math.inf, False, 0.05), (math.nan, False, 0.025)),
        *((1.0, True, 0.05), (0.5, True, 0.1), (1.0 + 1e-16, True, 0.2), (0.1, True, 0.2)),
    ):
        assert judge(new_loss) == accepted
        assert rule.lr == lr, "it comes back to what it was, and no further"
        assert (rule.last is not None) == accepted


def test_without_it_a_step_may_lead_anywhere_finite() -> None:
    rule, point = Fixed(0.2), Point()
    assert judged(rule, 1.0, 1e9, rule.propose(draw(1), point)) == (True, None)
    assert rule.lr == 0.2


def test_a_step_that_is_watched_is_measured_with_the_next() -> None:
    rule, point, earlier = Fixed(0.2), Point(), draw(5)
    assert rule.seen() is None
    rule.watch(earlier)
    rule.propose(draw(1), point)
    slope, form = rule.seen()  # type: ignore[misc]
    assert slope == pytest.approx(float(point.gradient @ earlier))
    assert form is None
    rule.watch(None)
    rule.propose(draw(2), point)
    assert rule.seen() is None


def test_a_state_is_restored() -> None:
    rule, point = Fixed(0.1, 0.9, refuse=True), Point()
    judged(rule, 1.0, 1.5, rule.propose(draw(1), point))
    judged(rule, 1.0, 1.5, rule.propose(draw(1), point))
    judged(rule, 1.0, 0.5, rule.propose(draw(1), point))
    assert rule.lr == 0.05
    state = rule.state_dict()
    again = Fixed()
    again.load_state_dict(state)
    assert_identical(again.state_dict(), state)
    assert again.last is not rule.last


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Fixed(0.0), r"lr is 0\.0"),
        (lambda: Fixed("1"), "lr is '1'"),  # type: ignore[arg-type]
        (lambda: Fixed(0.1, 1.0), r"momentum is 1\.0"),
        (lambda: Fixed(0.1, refuse=1), "refuse is 1"),  # type: ignore[arg-type]
    ],
)
def test_refuses_options(make, named: str) -> None:
    with pytest.raises(NewtritonError, match=named):
        make()
