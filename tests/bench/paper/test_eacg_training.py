"""EA-CG's training runs: what is tried, what rows say, and that all of it runs."""

from __future__ import annotations

from math import inf

import pytest

import newtriton as nt
from newtriton.bench.paper import eacg_training
from newtriton.bench.paper.eacg_training import (
    BASELINE,
    BY_CURVATURE,
    BY_SOLVER,
    CURVATURE,
    SOLVER,
    Method,
    epochs,
    judged,
    measured,
    ratios,
)
from newtriton.bench.protocol.experiment import Experiment, Row, Setting

SMOKE = Setting("smoke", (0,))


@pytest.mark.parametrize("experiment", [CURVATURE, SOLVER], ids=["curvature", "solver"])
def test_an_experiment_runs_and_is_judged(experiment: Experiment) -> None:
    rows = experiment.measure(SMOKE)
    assert not [row for row in rows if "fault" in row]
    training = [row for row in rows if row["part"] == "training"]
    assert {row["data"] for row in training} == {"digits in place of cifar10"}
    assert all(row["network"] == "64-16-10" for row in training)
    experiment.figure(rows)
    found = experiment.findings(rows)
    assert all(f.paper and f.ours and f.why for f in found)


def test_methods_are_those_of_the_papers_figures() -> None:
    names = {m.name for m in BY_CURVATURE if m.suits("eq. 14")}
    assert names == {"SGD", "SGD at η/α"} | {
        f"{c} × {s}" for c in ("Fisher", "PCH-1", "PCH-2") for s in ("KFI", "EA-CG")
    }
    assert all(m.suits("cross entropy") for m in (*BY_CURVATURE, *BY_SOLVER))


def test_the_full_grid_is_the_papers() -> None:
    full = Setting("full")
    assert len(Method("EA-CG", "PCH-1").points(full)) == 3 * 3 * 4 * 4 * 4
    assert len(Method("KFI", "Fisher").points(full)) == 3 * 3 * 4
    assert len(BASELINE.points(full)) == 3 * 3
    assert len(Method("CG", "PCH-1").points(Setting())) == 3 * 4


@pytest.mark.parametrize("method", [*BY_SOLVER[:4], Method("EA-CG", "GN")], ids=lambda m: m.name)
def test_an_optimizer_is_that_of_its_method(method: Method) -> None:
    model = nt.compile(nt.models.mlp((4,)), (3,), nt.CrossEntropyLoss(), backend="aten")
    optimizer = method.optimizer(model, method.points(Setting())[-1])
    if not method.curvature:
        assert isinstance(optimizer, nt.TorchOptimizer)
        return
    assert optimizer.solver.name == method.solver.lower()
    assert optimizer.curvature.name == eacg_training.KINDS[method.curvature]
    assert optimizer.form == ("additive" if method.solver == "KFI" else "convex")
    assert (optimizer.noise, optimizer.damping, optimizer.rule.lr) == (None, 0.1, 0.2)
    assert any(block.names == ("1.bias",) for block in optimizer.curvature.blocks.blocks) or (
        not optimizer.curvature.factors
    )


def row(method: str, seed: int, *losses: float, **more: object) -> Row:
    curve = {"epoch": [*range(len(losses))], "loss": [*losses]}
    return {"criterion": "eq. 14", "method": method, "seed": seed, **curve, **more}


def test_numbers_of_a_seed_are_measured_together() -> None:
    """A level is the lowest loss that all methods reach, from the same start."""
    rows = [row("SGD", 0, 4, 2, 1), row("SGD", 1, 4, 3, 3)]
    rows += [row("PCH-1 × KFI", 0, 4, 1, 0.1), row("PCH-1 × KFI", 1, 4, 3.5, 3)]
    found = measured(rows, "eq. 14", [BASELINE, Method("KFI", "PCH-1")], epochs)
    assert found == {"SGD": [2.0, 1.0], "PCH-1 × KFI": [1.0, 2.0]}
    assert ratios(found) == [2.0, 2.0]


def test_a_run_with_a_fault_is_no_better_than_any() -> None:
    assert eacg_training.losses([row("SGD", 0, 1.0, 0.1, fault="diverged")]) == [inf]


def test_comparisons_that_differ_leave_a_claim_open() -> None:
    assert [judged(holds) for holds in ([True], [False], [True, False])] == [
        "agrees", "contradicts", "open",
    ]  # fmt: skip
