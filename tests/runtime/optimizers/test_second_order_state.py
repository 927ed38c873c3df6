"""The general constructor: what passes between the parts, and forms of the damping."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

import newtriton as nt
from newtriton.runtime.curvatures.kronecker import KroneckerCurvature
from newtriton.runtime.curvatures.matrix_free import MatrixFree
from newtriton.runtime.parts.protocols import Status
from newtriton.runtime.rules.fixed import Fixed
from newtriton.runtime.rules.quadratic_model import QuadraticModel
from newtriton.runtime.rules.trust_region import TrustRegion
from newtriton.runtime.solvers.cg import Steihaug
from newtriton.runtime.solvers.direct import Eigen

from ..problems import dense, problem


def test_steihaug_gets_the_radius_of_the_rule_and_follows_negative_curvature() -> None:
    model, [(x, y)] = problem("mlp", weight_decay=0.0)
    model.params.mul_(1e-3)  # a saddle
    rule = TrustRegion(10.0, initial_radius=0.5)
    curvature = MatrixFree(model, "hessian")
    optimizer = nt.SecondOrder(model, curvature, Steihaug(100, 1e-6), rule, damping=0.0)
    hessian = dense(model.linearize(x, y).hvp, model.layout.numel)
    assert float(torch.linalg.eigvalsh(hessian)[0]) < -1e-3
    report = optimizer.step(x, y)
    assert report.status in (Status.NEGATIVE_CURVATURE.value, Status.BOUNDARY.value)
    assert report.step_norm == pytest.approx(0.5)
    assert report.accepted
    seen = {optimizer.step(x, y).status for _ in range(5)}
    assert Status.NEGATIVE_CURVATURE.value in seen | {report.status}


@pytest.mark.parametrize(("form", "damping"), [("additive", 0.3), ("convex", 0.2)])
def test_both_forms_of_the_damping(form: str, damping: float) -> None:
    """C + γI + ηI, and (1 − α)(C + ηI) + αI, on factors that are solved exactly."""
    model, [(x, y)] = problem("mlp", weight_decay=0.05)
    curvature = KroneckerCurvature(model, "empirical")
    optimizer = nt.SecondOrder(model, curvature, Eigen(), Fixed(1.0), damping, form=form)
    before, gradient = model.params.clone(), model.linearize(x, y).gradient
    optimizer.step(x, y)
    eye = torch.eye(model.layout.numel, dtype=torch.float64)
    c = dense(curvature.mv, model.layout.numel) + 0.05 * eye
    system = c + 0.3 * eye if form == "additive" else 0.8 * c + 0.2 * eye
    expected = -torch.linalg.solve(system, gradient)
    torch.testing.assert_close(model.params - before, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("bad", range(3))
def test_a_damping_whose_model_is_not_finite_is_never_chosen(bad: int) -> None:
    model, [(x, y)] = problem("mlp")
    rule, asked = QuadraticModel(1.0), []
    propose = rule.propose

    def broken(direction, lin):
        asked.append(direction)
        proposal = propose(direction, lin)
        return replace(proposal, predicted=math.nan) if len(asked) == bad + 1 else proposal

    rule.propose = broken  # type: ignore[method-assign]
    rule.dampings = lambda _: (1.0, 0.5, 2.0)  # type: ignore[method-assign]
    report = nt.SecondOrder(model, "kfac", "eigen", rule, 1.0).step(x, y)
    assert len(asked) == 3
    assert report.accepted
    assert report.damping != (1.0, 0.5, 2.0)[bad]


def test_any_curvature_may_be_of_a_sample() -> None:
    model, [(x, y)] = problem("mlp")
    optimizer = nt.SecondOrder(model, "empirical", "kfi", "trust-region", sample=0.5, seed=2)
    rows = torch.randperm(24, generator=torch.Generator().manual_seed(2))[:12]
    expected = model.linearize(x[rows], y[rows]).kronecker_factors("empirical")
    loss = model.linearize(x, y).objective
    report = optimizer.step(x, y)
    assert report.loss == pytest.approx(loss, rel=1e-13)
    for layer, factors in optimizer.curvature.factors.items():
        assert torch.equal(factors.G, expected[layer].G)


def test_parts_by_name_start_with_the_optimizers_damping() -> None:
    model, _ = problem("mlp")
    optimizer = nt.SecondOrder(model, "kfac", "ea-cg", "quadratic", 0.7)
    assert optimizer.rule.damping == 0.7  # type: ignore[attr-defined]
    assert optimizer.curvature.means == ["0", "2"]  # type: ignore[attr-defined]
