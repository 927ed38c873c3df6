"""Cosines of updates with exact Gauss–Newton updates against dense solves."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

import newtriton as nt
from newtriton.compiler.curvature.factors import KINDS
from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.curvatures.kronecker import KroneckerCurvature
from newtriton.runtime.curvatures.matrix_free import MatrixFree
from newtriton.runtime.solvers.cg import TruncatedCG

from ..problems import dense, problem
from .test_errors import batch_norm_and_groups


@pytest.mark.parametrize("net", ["mlp", "cnn"])
def test_cosines_are_those_of_dense_solves(net: str) -> None:
    model, [(x, y)] = problem(net, weight_decay=0.05)
    lin, layout = model.linearize(x, y), model.layout
    own = KroneckerCurvature(model, "kfac", seed=7)
    own.update(lin)
    updates = {"own": own, "gradient": -lin.gradient}
    found = nt.alignment(lin, updates, solver="eigen", damping=0.1, tolerance=1e-12)
    eye = torch.eye(layout.numel, dtype=torch.float64)
    ggn = dense(lin.ggnvp, layout.numel) + 0.1 * eye
    system = dense(own.mv, layout.numel) + 0.15 * eye
    steps = {"own": -torch.linalg.solve(system, lin.gradient), "gradient": -lin.gradient}
    whole = -torch.linalg.solve(ggn, lin.gradient)
    blocks = torch.empty_like(whole)
    for layer, names in layout.layers.items():
        at = layout.places(names)
        blocks[at] = -torch.linalg.solve(ggn[at][:, at], lin.gradient[at])
        for name, step in steps.items():
            cosine = torch.cosine_similarity(step[at], blocks[at], 0)
            assert found.layers[name][layer] == pytest.approx(float(cosine), abs=1e-9)
    for name, step in {**steps, "exact, by layer": blocks}.items():
        cosine = torch.cosine_similarity(step, whole, 0)
        assert found.whole[name] == pytest.approx(float(cosine), abs=1e-9)
    assert max(found.residuals.values()) < 1e-11
    assert list(found.residuals) == [*layout.layers, "whole"]


def test_the_exact_update_has_cosine_one() -> None:
    model, [(x, y)] = problem("quadratic")
    lin = model.linearize(x[:1], y[:1])
    found = nt.alignment(lin, ("kflr", "kfra"), solver="eigen", damping=0.1)
    assert min(found.whole.values()) > 1 - 1e-12
    ggn = MatrixFree(model)
    ggn.update(lin)
    solved = TruncatedCG(100, 1e-12).solve(ggn, 0.1 + model.weight_decay, lin.gradient)
    found = nt.alignment(lin, {"cg": -solved.x, "away": solved.x}, damping=0.1)
    assert found.whole["cg"] == pytest.approx(1.0, abs=1e-12)
    assert found.whole["away"] == pytest.approx(-1.0, abs=1e-12)
    lin.gradient.zero_()
    assert math.isnan(nt.alignment(lin, ("kflr",)).whole["kflr"])


@pytest.mark.parametrize("solver", ["kfi", "cg", "ea-cg"])
def test_solvers_by_name(solver: str) -> None:
    model, [(x, y)] = problem("cnn")
    found = nt.alignment(model.linearize(x, y), solver=solver, damping=0.1)
    assert list(found.whole) == [*KINDS, "exact, by layer"]
    assert min(found.whole.values()) > 0.5


def test_exact_updates_are_found_in_float32() -> None:
    (x, y), _ = nt.digits()
    model = nt.compile(nt.models.small_cnn(), (1, 8, 8), nt.CrossEntropyLoss())
    lin = model.linearize(x[:16], y[:16])
    assert nt.alignment(lin, ("kfac",), damping=1.0).residuals["whole"] < 1e-5


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda lin: nt.alignment(lin, ("fisher",)), "curvature is 'fisher'"),
        (lambda lin: nt.alignment(lin, ("ggn",)), "Kronecker"),
        (lambda lin: nt.alignment(lin, solver="lu"), "solver is 'lu'"),
        (lambda lin: nt.alignment(lin, damping=-1), "damping is -1"),
        (lambda lin: nt.alignment(lin, {"v": torch.ones(3)}), "the update 'v' is"),
        (lambda lin: nt.alignment(lin, {3: lin.gradient}), "updates have a key 3: give strings"),
    ],
)
def test_refuses_what_there_cannot_be(
    call: Callable[[nt.Linearization], object], named: str
) -> None:
    model, [(x, y)] = problem("cnn")
    with pytest.raises(NewtritonError, match=named):
        call(model.linearize(x, y))


def test_batch_norm_and_groups() -> None:
    found = nt.alignment(batch_norm_and_groups(), ("kflr",), damping=0.1)
    assert list(found.residuals) == ["0", "1", "4", "whole"]
