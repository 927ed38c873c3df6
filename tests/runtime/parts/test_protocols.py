"""Statuses by severity, and what a sentence about a part that is missing says."""

from __future__ import annotations

import pytest
import torch

from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.curvatures.matrix_free import MatrixFree
from newtriton.runtime.parts.protocols import Status
from newtriton.runtime.parts.tags import MISSING, Tag
from newtriton.runtime.rules.quadratic_model import QuadraticModel
from newtriton.runtime.solvers.cg import TruncatedCG
from newtriton.runtime.solvers.direct import KFI

from ..problems import problem
from .points import Point, draw


def test_each_status_has_a_severity_of_its_own_and_failures_are_the_worst() -> None:
    severities = [status.severity for status in Status]
    assert len(set(severities)) == len(severities)
    failed = {status for status in Status if status.failed}
    assert failed == {Status.FAILED, Status.BREAKDOWN, Status.NOT_FINITE}
    usable = [status.severity for status in Status if not status.failed]
    assert max(usable) < min(status.severity for status in failed)
    assert min(Status, key=lambda status: status.severity) is Status.SOLVED


@pytest.mark.parametrize("status", [s for s in Status if s is not Status.SOLVED])
def test_a_status_is_a_sentence_that_names_the_remedy(status: Status) -> None:
    assert Status(status.value) is status
    remedies = ("`", "float64", "'ggn'")
    assert any(remedy in status.value for remedy in remedies)


def test_a_solver_on_its_own_says_what_it_misses() -> None:
    model, [(x, y)] = problem("mlp")
    curvature, g = MatrixFree(model), model.linearize(x, y).gradient
    with pytest.raises(NewtritonError, match="'ggn': this solver works on Kronecker factors"):
        KFI().solve(curvature, 0.1, g)
    with pytest.raises(NewtritonError, match="brings no factors"):
        TruncatedCG(preconditioner=KFI()).solve(curvature, 0.1, g)


def test_what_a_part_may_need_has_a_sentence() -> None:
    assert set(MISSING) == set(Tag) - {Tag.DIAGONAL}


def test_a_proposal_times_a_number_is_what_the_model_says_of_that_step() -> None:
    point, direction = Point(), draw(1)
    proposal = QuadraticModel(0.0, momentum=False).propose(direction, point)
    for factor in (0.5, 1e-3, 1.7):
        shorter, step = proposal.times(factor), factor * proposal.step
        torch.testing.assert_close(shorter.step, step)
        assert shorter.norm == pytest.approx(float(step.norm()))
        assert shorter.predicted == pytest.approx(-point.model(step))
        assert shorter.slope == pytest.approx(float(point.gradient @ step))
        torch.testing.assert_close(step, -shorter.along * direction)
