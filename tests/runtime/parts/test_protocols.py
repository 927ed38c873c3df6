"""Statuses by severity, and what a sentence about a part that is missing says."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import newtriton as nt
from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.curvatures.matrix_free import MatrixFree
from newtriton.runtime.parts.protocols import Status, check_curvature, check_rule, check_solver
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


class Diagonal(nt.LinearSolver):
    """Divides by the damping alone."""

    name: str = "diagonal"
    needs: frozenset[Tag] = frozenset()

    def prepare(self, curvature: nt.Curvature, damping: float) -> Any:
        def solve(g: torch.Tensor, radius: float | None = None) -> nt.Solution:
            return nt.Solution(g / damping, nt.Status.SOLVED)

        return SimpleNamespace(solve=solve)


def test_a_solver_needs_no_more_than_a_name_its_needs_and_prepare(tmp_path: Path) -> None:
    def trained(epochs: int) -> tuple[torch.Tensor, int]:
        model = nt.compile(nt.Linear(3), (3,), nt.CrossEntropyLoss(), device="cpu", seed=0)
        optimizer = nt.SecondOrder(model, "ggn", Diagonal(), "trust-region")
        data = [(torch.eye(3), torch.arange(3))]
        history = nt.fit(
            model, optimizer, data, epochs=epochs, progress=False, checkpoint=tmp_path,
            resume="auto",
        )  # fmt: skip
        return model.params.clone(), len(history.epochs)

    first, _ = trained(1)
    then, epochs = trained(2)
    assert epochs == 2
    assert not torch.equal(first, then)
    assert Diagonal().state_dict() == {}
    assert repr(Diagonal()) == "Diagonal()"


def test_a_solver_with_a_state_of_its_own_is_put_back_by_it() -> None:
    class Counting(Diagonal):
        def __init__(self) -> None:
            self.counts = torch.zeros(1)

        def state_dict(self) -> dict[str, Any]:
            return {"counts": self.counts.clone()}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.counts = state["counts"].clone()

    solver = Counting()
    undo = solver.hold()
    solver.counts += 1
    undo()
    assert solver.counts.item() == 0


class Prepared:
    """Lacks most of a solver."""

    name, needs = "prepared", frozenset[Tag]()

    def prepare(self, curvature: object, damping: float) -> None: ...


@pytest.mark.parametrize(
    ("check", "value", "said"),
    [
        (
            check_solver,
            Prepared(),
            "solver is <tests.runtime.parts.test_protocols.Prepared object>, which lacks "
            "load_state_dict, solve, state_dict, state_spec of nt.Solver: give a solver, e.g. KFI()"
            ", or a subclass of LinearSolver",
        ),
        (check_solver, 3, "solver is 3: give a solver, e.g. KFI(), or a subclass of LinearSolver"),
        (
            check_solver,
            nt.KFI,
            "solver is <class 'newtriton.runtime.solvers.direct.KFI'>: give a solver, e.g. KFI(), "
            "or a subclass of LinearSolver",
        ),
        (
            check_curvature,
            SimpleNamespace(tags=frozenset(), mv=None, model=None),
            "curvature is namespace(tags=frozenset(), mv=None, model=None), which lacks blocks, "
            "load_state_dict, name, preconditioner, state_dict, state_spec, update of "
            "nt.Curvature: give a curvature, e.g. KroneckerCurvature(model)",
        ),
        (check_rule, None, "rule is None: give a step rule, e.g. TrustRegion()"),
    ],
)
def test_what_a_part_lacks_is_named(check: Any, value: object, said: str) -> None:
    with pytest.raises(NewtritonError) as raised:
        check(check.__name__.removeprefix("check_"), value)
    assert str(raised.value) == said


def test_no_property_is_computed_to_see_whether_it_is_there() -> None:
    class Costly(Diagonal):
        @property
        def needs(self) -> frozenset[Tag]:  # type: ignore[override]
            pytest.fail("it is computed")

    solver = Costly()
    assert check_solver("solver", solver) is solver
