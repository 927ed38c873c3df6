"""The papers' methods as presets: their defaults, what a step does, and how a run resumes."""

from __future__ import annotations

import io
import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import newtriton as nt
from newtriton.compiler.curvature.factors import KINDS
from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.model.factors import MeanFactors
from newtriton.runtime.optimizers.presets import refresh_intervals
from newtriton.runtime.optimizers.second_order import SEARCH_FAILED
from newtriton.runtime.parts.protocols import Solution, Status

from ..problems import LOSSES, parts_of, problem
from ..stand_in import assert_identical

PRESETS = {
    "fitre": nt.FITRE,
    "kfac": nt.KFAC,
    "eacg": lambda model, **options: nt.EACG(model, factors="kfac", **options),
    "newton-cg": nt.NewtonCG,
    "newton-cg preconditioned": lambda model, **options: nt.NewtonCG(
        model, sample=0.5, preconditioner="kfac", **options
    ),
}
OF_KIND = {"kfra": nt.KFRA, "kflr": nt.KFLR, "pch-1": nt.EACG}
PRESETS |= {f"of {kind}": OF_KIND[kind] for kind in OF_KIND if kind in KINDS}


@pytest.mark.parametrize(("name", "loss"), list(itertools.product(PRESETS, LOSSES)))
def test_the_loss_falls_at_the_defaults(name: str, loss: str) -> None:
    model, [(x, y)] = problem("mlp", loss)
    optimizer = PRESETS[name](model)
    losses = [optimizer.step(x, y).loss for _ in range(10)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("stop", [1, 21])
def test_a_run_resumes_bit_for_bit(name: str, stop: int) -> None:
    """Twenty-one steps in, K-FAC's γ has just been chosen among three."""
    model, [(x, y)] = problem("mlp")
    optimizer = PRESETS[name](model)
    for _ in range(stop):
        optimizer.step(x, y)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed, _ = problem("mlp")
    again = PRESETS[name](resumed, seed=7)
    resumed.load_state_dict(saved["model"])
    again.load_state_dict(saved["optimizer"])
    for _ in range(4):
        assert optimizer.step(x, y) == again.step(x, y)
    assert torch.equal(model.params, resumed.params)
    assert_identical(optimizer.state_dict(), again.state_dict())


# --- K-FAC and KFRA ------------------------------------------------------------------------------


def test_kfac_finds_the_exact_minimum_along_its_direction_and_the_last_step() -> None:
    model, [(x, y)] = problem("quadratic", "mse")
    optimizer = nt.KFAC(model, damping=1e-3, noise=None)
    for _ in range(3):
        before, last = model.params.clone(), optimizer.rule.last
        optimizer.step(x, y)
        after = model.params.clone()
        model.params.copy_(before)
        lin = model.linearize(x, y)
        slope = lin.ggnvp(after - before) + 1e-3 * (after - before) + lin.gradient
        model.params.copy_(after)
        for direction in (after - before, *([] if last is None else [last])):
            assert abs(float(slope @ direction)) < 1e-9 * float(lin.gradient @ lin.gradient)


def test_the_best_of_three_dampings_stays() -> None:
    model, [(x, y)] = problem("mlp")
    optimizer = nt.KFAC(model, damping=10.0, noise=None)
    for _ in range(20):
        assert optimizer.step(x, y).damping == 10.0
    predicted = {}
    for gamma in (10.0, 10 * 0.95**20, 10 / 0.95**20):
        trial, _ = problem("mlp")
        twin = nt.KFAC(trial, damping=10.0, noise=None)
        trial.load_state_dict(model.state_dict())
        twin.load_state_dict(optimizer.state_dict())
        twin.rule.dampings = lambda _, gamma=gamma: (gamma,)
        predicted[gamma] = twin.step(x, y).predicted
    report = optimizer.step(x, y)
    assert report.damping == max(predicted, key=predicted.__getitem__)
    assert report.predicted == pytest.approx(max(predicted.values()), rel=1e-12)


def test_the_polyak_average_is_that_of_the_parameters() -> None:
    model, [(x, y)] = problem("mlp")
    optimizer = nt.KFAC(model, average=0.95)
    seen = []
    for _ in range(5):
        optimizer.step(x, y)
        seen.append(model.params.clone())
    assert optimizer.average is not None
    assert optimizer.average.mean is not None
    torch.testing.assert_close(optimizer.average.mean, torch.stack(seen).mean(0))
    trained, loss = model.params.clone(), model.objective(x, y)
    with optimizer.average.in_place(model):
        assert torch.equal(model.params, optimizer.average.mean)
        assert model.objective(x, y) != loss
    assert torch.equal(model.params, trained)


# --- EA-CG ---------------------------------------------------------------------------------------


def test_eacg_keeps_means_and_solves_the_papers_system() -> None:
    """Eqs. 10 and 11b: ((1 − α)(G ⊗ E[h]E[h]ᵀ + ηI) + αI) d = g, the bias on its own."""
    model, [(x, y)] = problem("mlp", weight_decay=0.01)
    optimizer = nt.EACG(model, 0.2, 0.05, factors="empirical", limit=100, tolerance=1e-12)
    before, gradient = model.params.clone(), model.linearize(x, y).gradient
    report = optimizer.step(x, y)
    assert report.cg_iterations > 0
    step = model.unflatten((before - model.params) / 0.2)
    g = model.unflatten(gradient)
    model.params.copy_(before)
    inputs = {"0": x.mean(0), "2": (x @ model.unflatten(before)["0.weight"].T).new_zeros(5)}
    hidden = x @ model.unflatten(before)["0.weight"].T + model.unflatten(before)["0.bias"]
    inputs["2"] = hidden.tanh().mean(0)
    for layer, mean in inputs.items():
        factors = optimizer.curvature.factors[layer]
        assert isinstance(factors, MeanFactors)
        torch.testing.assert_close(factors.mean, mean)
        pair = ((f"{layer}.weight", torch.outer(mean, mean)), (f"{layer}.bias", torch.ones(1, 1)))
        for name, a in pair:
            c = torch.kron(factors.G, a.double())
            eye = torch.eye(len(c), dtype=torch.float64)
            expected = torch.linalg.solve(0.95 * (c + 0.01 * eye) + 0.05 * eye, g[name].reshape(-1))
            torch.testing.assert_close(step[name].reshape(-1), expected, rtol=1e-8, atol=1e-11)


def test_eacg_keeps_o_of_n_numbers_of_a_layers_inputs() -> None:
    """Its Table 1: Σ n_in + Σ n_out² numbers."""
    model, [(x, y)] = problem("mlp")
    optimizer = nt.EACG(model, factors="kfac")
    optimizer.step(x, y)
    state = optimizer.curvature.state_dict()["factors"]
    kept = sum(t.numel() for factors in state.values() for t in factors.values())
    assert kept == (4 + 5) + (5**2 + 3**2)
    programs = model.linearize(x, y).programs
    graph = programs.factors("kfac", 1, frozenset({"0", "2"})).graph
    shapes = {node.shape for node in graph.computed()}
    assert not shapes & {(4, 4), (5, 6), (6, 6)}


# --- Newton-CG -----------------------------------------------------------------------------------


def test_a_step_on_data_is_the_step_on_them_as_one_batch() -> None:
    one, [(x, y)] = problem("mlp")
    many, _ = problem("mlp")
    whole = nt.NewtonCG(one, sample=1.0).step(x, y)
    report = nt.NewtonCG(many, sample=1.0).step(parts_of(x, y))
    for name in ("loss", "new_loss", "step_norm", "rho", "predicted"):
        assert getattr(report, name) == pytest.approx(getattr(whole, name), rel=1e-9)
    torch.testing.assert_close(many.params, one.params)


def test_newton_cg_solves_with_the_samples_curvature_and_the_whole_gradient() -> None:
    model, [(x, y)] = problem("mlp", weight_decay=0.1)
    optimizer = nt.NewtonCG(model, damping=0.5, sample=0.25, tolerance=1e-12, seed=3)
    generator = torch.Generator().manual_seed(3)
    data, sample = parts_of(x, y), torch.randperm(len(x), generator=generator)[: len(x) // 4]
    lin = model.linearize(x[sample], y[sample])
    matrix = torch.stack([lin.ggnvp(e) for e in torch.eye(model.layout.numel).double()])
    matrix += 0.5 * torch.eye(model.layout.numel)
    gradient, before = model.linearize(x, y).gradient, model.params.clone()
    report = optimizer.step(data)
    d = -torch.linalg.solve(matrix, gradient)
    torch.testing.assert_close(model.params - before, d, rtol=1e-8, atol=1e-11)
    predicted = -float(gradient @ d + 0.5 * d @ (matrix @ d - 0.5 * d))  # without λ, with 1/C
    assert report.predicted == pytest.approx(predicted)
    assert report.rho == pytest.approx((report.loss - report.new_loss) / predicted)  # type: ignore[operator]
    assert report.damping == pytest.approx(0.5 * (2 / 3 if report.rho > 0.75 else 1.0))  # type: ignore[operator]
    assert report.accepted


def test_running_statistics_move_once_for_each_batch_of_the_data() -> None:
    net = nt.Sequential(nt.Conv2d(2, 3), nt.BatchNorm2d(), nt.Flatten(), nt.Linear(2))
    model = nt.compile(net, (1, 4, 4), nt.CrossEntropyLoss(), dtype=torch.float64)
    x, y = torch.randn(12, 1, 4, 4, dtype=torch.float64), torch.arange(12) % 2
    assert nt.NewtonCG(model, sample=0.5).step([(x[:6], y[:6]), (x[6:], y[6:])]).accepted
    assert int(model.buffers["1.num_batches_tracked"]) == 2


def test_a_line_search_that_finds_nothing_is_reported_and_the_damping_grows() -> None:
    model, [(x, y)] = problem("mlp")
    optimizer = nt.NewtonCG(model, sample=1.0)
    h, start = model.objective(x, y), model.params.clone()

    def wall(x: Tensor, y: Tensor, training: bool = True) -> float:
        return h + float((model.params - start).abs().sum())

    model.objective = wall  # type: ignore[method-assign]
    report = optimizer.step(x, y)
    assert (report.accepted, report.halvings, report.status) == (False, 20, SEARCH_FAILED)
    assert torch.equal(model.params, start)
    assert report.damping == optimizer.damping == 1.5
    del model.objective
    assert optimizer.step(x, y).accepted


@pytest.mark.parametrize("status", [Status.FAILED, Status.BREAKDOWN, Status.NOT_FINITE])
def test_a_solve_that_failed_is_refused_and_the_damping_grows(status: Status) -> None:
    model, [(x, y)] = problem("mlp")
    optimizer, start = nt.NewtonCG(model), model.params.clone()
    solve = optimizer.solver.solve
    optimizer.solver.solve = lambda c, d, g, _: Solution(0 * g, status)  # type: ignore[method-assign]
    report = optimizer.step(x, y)
    assert (report.accepted, report.new_loss, report.status) == (False, None, status.value)
    assert (report.rejected, optimizer.damping) == (1, 1.5)
    assert torch.equal(model.params, start)
    optimizer.solver.solve = solve  # type: ignore[method-assign]
    assert optimizer.step(x, y).rejected == 0


def test_curvature_that_is_not_finite_ends_cg_with_a_status() -> None:
    model, [(x, y)] = problem("mlp")
    optimizer = nt.NewtonCG(model)
    optimizer.curvature.mv = lambda v: math.nan * v  # type: ignore[method-assign]
    report = optimizer.step(x, y)
    assert report.status == Status.NOT_FINITE.value
    assert not report.accepted


# --- bad input -----------------------------------------------------------------------------------


def test_data_must_be_batches_that_can_be_passed_through_again() -> None:
    model, [(x, y)] = problem("mlp")
    optimizer = nt.NewtonCG(model)
    with pytest.raises(NewtritonError, match="one-shot iterator"):
        optimizer.step(iter([(x, y)]))
    with pytest.raises(NewtritonError, match="no batches"):
        optimizer.step([])
    with pytest.raises(NewtritonError, match="without labels"):
        optimizer.step(x)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda m: nt.FITRE(m, max_radius="1"), "max_radius is '1'"),
        (lambda m: nt.FITRE(m, damping="0.1"), "damping is '0.1'"),
        (lambda m: nt.FITRE(m, damping=True), "damping is True"),
        (lambda m: nt.FITRE(m, burn_in=2.5), r"burn_in is 2\.5"),
        (lambda m: nt.FITRE(m, momentum="0.9"), "momentum is '0.9'"),
        (lambda m: nt.FITRE(m, moving_average=1.0), r"moving_average is 1\.0"),
        (lambda m: nt.FITRE(m, case=1), "case is 1"),
        (lambda m: nt.FITRE(m, reject_below=None), "reject_below is None"),
        (lambda m: nt.FITRE(m, initial_radius="small"), "initial_radius is 'small'"),
        (lambda m: nt.FITRE(m, factors="fisher"), "kind is 'fisher'"),
        (lambda m: nt.FITRE(m, seed=0.5), r"seed is 0\.5"),
        (lambda m: nt.KFAC(m, damping="150"), "damping is '150'"),
        (lambda m: nt.KFAC(m, samples=0), "samples is 0"),
        (lambda m: nt.KFAC(m, every=2.5), r"every is 2\.5"),
        (lambda m: nt.KFAC(m, momentum=1), "momentum is 1"),
        (lambda m: nt.KFAC(m, momentum=torch.ones(2)), r"momentum is tensor\(\[1"),
        (lambda m: nt.KFAC(m, average=1.0), r"average is 1\.0"),
        (lambda m: nt.EACG(m, lr=0.0, factors="kfac"), r"lr is 0\.0"),
        (lambda m: nt.EACG(m, alpha=1.0, factors="kfac"), r"damping is 1\.0"),
        (lambda m: nt.EACG(m, limit=0, factors="kfac"), "limit is 0"),
        (lambda m: nt.EACG(m, apart=1, factors="kfac"), "apart is 1"),
        (lambda m: nt.NewtonCG(m, sample=0), "sample is 0"),
        (lambda m: nt.NewtonCG(m, curvature="fisher"), "kind is 'fisher'"),
        (lambda m: nt.NewtonCG(m, product="fast"), "product is 'fast'"),
        (lambda m: nt.NewtonCG(m, preconditioner="lu"), "kind is 'lu'"),
    ],
)
def test_refuses_options(make, named: str) -> None:
    model, _ = problem("mlp")
    with pytest.raises(NewtritonError, match=named):
        make(model)


def test_schedules_of_gathering_and_inverting() -> None:
    assert [refresh_intervals(e) for e in (1, 5, (1, 20), (5, 12))] == [
        (1, 1),
        (5, 1),
        (1, 20),
        (5, 3),
    ]


def test_intervals_are_numpys_integers_too() -> None:
    two, four = np.int64(2), np.int32(4)
    assert refresh_intervals(two) == refresh_intervals(2) == (2, 1)
    assert refresh_intervals((two, four)) == refresh_intervals((2, 4)) == (2, 2)
    for every in (0, True, "2", (1, 2, 3), (2, 0), [2, 4]):
        with pytest.raises(nt.NewtritonError, match=r"every is .*: give steps"):
            refresh_intervals(every)


@pytest.mark.parametrize("preset", [nt.FITRE, nt.KFAC, nt.EACG, nt.NewtonCG])
@pytest.mark.parametrize("noise", ["wiener", None])
def test_batches_of_loss_zero_change_no_radius_and_no_damping(preset: Any, noise: Any) -> None:
    model = nt.compile(nt.Linear(1), (4,), nt.MSELoss(), backend="aten", device="cpu")
    model.params.zero_()
    options = {"noise": noise} if preset in (nt.FITRE, nt.KFAC) else {}
    optimizer, x = preset(model, **options), torch.eye(4)
    before = optimizer.rule.radius, optimizer.rule.lr, optimizer.damping
    assert all(optimizer.step(x, torch.zeros(4, 1)).loss == 0.0 for _ in range(12))
    assert (optimizer.rule.radius, optimizer.rule.lr, optimizer.damping) == before
