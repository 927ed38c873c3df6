"""Statuses by severity, and what a sentence about a part that is missing says."""

from __future__ import annotations

import pytest

from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.curvatures.matrix_free import MatrixFree
from newtriton.runtime.parts.protocols import Status
from newtriton.runtime.parts.tags import MISSING, Tag
from newtriton.runtime.solvers.cg import TruncatedCG
from newtriton.runtime.solvers.direct import KFI

from ..problems import problem


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
