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


def test_a_state_is_restored() -> None:
    rule, point = Fixed(0.1, 0.9), Point()
    judged(rule, 1.0, 0.5, rule.propose(draw(1), point))
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
    ],
)
def test_refuses_options(make, named: str) -> None:
    with pytest.raises(NewtritonError, match=named):
        make()
