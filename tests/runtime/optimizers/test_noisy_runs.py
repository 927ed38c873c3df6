"""Runs on mini-batches, whose steps are judged against noise: they end well, and resume."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import newtriton as nt
from newtriton.compiler.graph.errors import NewtritonError

from ..problems import parts, parts_of, problem
from ..stand_in import assert_identical

NOISY = [nt.FITRE, nt.KFAC, nt.KFRA, nt.KFLR, nt.EACG, nt.NewtonCG]


@pytest.mark.parametrize("make", NOISY)
@pytest.mark.parametrize("stop", [1, 6])
def test_a_run_resumes_with_the_judgement_that_is_due(
    make: type[nt.SecondOrder], stop: int
) -> None:
    model, [(x, y)] = problem("mlp")
    optimizer, given = make(model), list(parts(x, y, stop + 7))
    for batch in given[:stop]:
        optimizer.step(*batch)
    saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    assert saved["optimizer"]["noise"]["last"] is not None, "a step waits for its judgement"
    resumed, _ = problem("mlp")
    again = make(resumed)
    resumed.load_state_dict(saved["model"])
    again.load_state_dict(saved["optimizer"])
    for batch in given[stop:]:
        assert optimizer.step(*batch) == again.step(*batch)
    assert torch.equal(model.params, resumed.params)
    assert_identical(optimizer.state_dict(), again.state_dict())


@pytest.mark.parametrize("make", NOISY)
def test_states_of_noise_that_do_not_fit_are_refused_by_name(make: type[nt.SecondOrder]) -> None:
    model, [(x, y)] = problem("mlp")
    optimizer = make(model)
    optimizer.step(x, y)
    state = optimizer.state_dict()
    wrong = {"last": torch.zeros(3), "mean": "none", "judged": -1, "slope": None, "gain": "1"}
    for name, value in wrong.items():
        bad = {**state, "noise": {**state["noise"], name: value}}
        with pytest.raises(NewtritonError, match=rf"noise.*{name}"):
            optimizer.load_state_dict(bad)
        del bad["noise"][name]
        with pytest.raises(NewtritonError, match=rf"noise.*{name}"):
            optimizer.load_state_dict(bad)
    literal = make(model, noise=None)  # type: ignore[call-arg]
    with pytest.raises(NewtritonError, match="noise"):
        literal.load_state_dict(state)
    with pytest.raises(NewtritonError, match="noise"):
        optimizer.load_state_dict(literal.state_dict())
    assert_identical(optimizer.state_dict(), state)


@pytest.mark.parametrize("make", [*NOISY, nt.SecondOrder])
@pytest.mark.parametrize("noise", ["kalman", True, 0, ("wiener",)])
def test_noise_is_one_of_two(make: Callable[..., nt.SecondOrder], noise: object) -> None:
    model, _ = problem("mlp")
    with pytest.raises(NewtritonError, match=r"noise is .*: 'wiener', or None for"):
        make(model, noise=noise)


@pytest.mark.parametrize("make", [nt.FITRE, nt.KFAC, nt.KFRA])
def test_a_damping_that_follows_covers_what_so_many_samples_cannot_see(
    make: type[nt.SecondOrder],
) -> None:
    model, [(x, y)] = problem("mlp")
    optimizer = make(model)
    assert optimizer.noise is not None
    for bx, by in parts(x, y, 4):
        optimizer.step(bx, by)
    optimizer.damping = 1e-9
    optimizer.noise.slope, optimizer.noise.steps = 0.25, 10**6
    expected = 0.75 * optimizer.curvature.unseen  # type: ignore[attr-defined]
    assert optimizer._dampings(16) == (expected,)
    optimizer.damping, optimizer.following.last = 2.0 * expected, 0
    assert min(optimizer._dampings(16)) == expected
    optimizer.damping, optimizer.noise.slope, optimizer.following.last = 1e-9, 1.0, 0
    assert min(optimizer._dampings(16)) < 1e-9, "nothing is unseen where batches agree"
    optimizer.damping, optimizer.noise.slope = 1e-9, 0.25
    assert optimizer._dampings(16) == (1e-9,), "it stays between the steps where it may move"


def test_a_step_on_all_data_has_no_noise() -> None:
    model, [(x, y)] = problem("mlp")
    literal, _ = problem("mlp")
    optimizer, paper = nt.NewtonCG(model, sample=0.5), nt.NewtonCG(literal, sample=0.5, noise=None)
    for _ in range(3):
        assert optimizer.step(parts_of(x, y)) == paper.step(parts_of(x, y))
    assert optimizer.noise is not None
    assert (optimizer.noise.steps, optimizer.noise.last) == (0, None)


def logistic(rare: bool) -> tuple[Tensor, Tensor, float]:
    """Inputs, noisy labels and the least loss; with `rare`, columns that two samples have."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(640, 12, generator=generator, dtype=torch.float64)
    w = torch.randn(12, 1, generator=generator, dtype=torch.float64)
    y = (
        torch.rand(640, 1, generator=generator, dtype=torch.float64) < (0.7 * x @ w).sigmoid()
    ) * 1.0
    if rare:
        columns = torch.zeros(640, 6, dtype=torch.float64)
        for j in range(6):
            columns[torch.randperm(640, generator=generator)[:2], j] = 25.0
        x = torch.cat([x, columns], 1)
    y, ones = y.double(), torch.cat([x, torch.ones(640, 1, dtype=torch.float64)], 1)
    best = torch.zeros(ones.shape[1], 1, dtype=torch.float64)
    for _ in range(50):  # Newton's method
        p = (ones @ best).sigmoid()
        hessian = ones.T @ (ones * p * (1 - p)) / 640
        ridge = 1e-9 * torch.eye(len(best), dtype=torch.float64)
        best -= torch.linalg.solve(hessian + ridge, ones.T @ (p - y) / 640)
    return x, y, float(nn.functional.binary_cross_entropy_with_logits(ones @ best, y))


@pytest.mark.parametrize("rare", [False, True])
@pytest.mark.parametrize("make", NOISY)
def test_a_convex_problem_in_small_batches_ends_near_its_optimum(
    make: type[nt.SecondOrder], rare: bool
) -> None:
    """Without noise, batches of 32 are fitted one after another, and the loss ends above 1."""
    x, y, least = logistic(rare)
    model = nt.compile(
        nt.Linear(1), (x.shape[1],), nt.BCEWithLogitsLoss(), dtype=torch.float64, device="cpu"
    )
    optimizer, generator = make(model), torch.Generator().manual_seed(1)
    start = model.objective(x, y)
    for _ in range(6):
        for rows in torch.randperm(640, generator=generator).split(32):
            assert optimizer.step(x[rows], y[rows]).rejected == 0
    end = model.objective(x, y)
    assert least < end < start
    if not rare:
        assert end - least < (0.05 if make is nt.NewtonCG else 0.01)


def test_eacg_refuses_a_step_that_raises_its_batchs_loss_and_recovers() -> None:
    model, [(x, y)] = problem("mlp", "mse")
    optimizer = nt.EACG(model, lr=3.0)
    refused = 0
    for _ in range(40):
        before, rate = model.params.clone(), optimizer.rule.lr
        report = optimizer.step(x, y)
        assert report.accepted == (report.new_loss is not None and report.new_loss <= report.loss)
        assert report.rejected == 0, "a step that was tried is no step that could not be made"
        if report.accepted:
            assert optimizer.rule.lr == min(3.0, 2.0 * rate)
        else:
            refused += 1
            assert torch.equal(model.params, before)
            assert optimizer.rule.lr == rate / 2.0
    assert 0 < refused < 30
    assert model.objective(x, y) < 0.3 * problem("mlp", "mse")[0].objective(x, y)


def test_large_factorisations_are_waited_for() -> None:
    """Three of 2·1101³ operations beside steps of 8 samples; small ones are not counted."""
    large = nt.compile(nt.Linear(2), (1100,), nt.MSELoss(), device="cpu")
    small = nt.compile(nt.Linear(2), (10,), nt.MSELoss(), device="cpu")
    for model, waits in ((large, True), (small, False)):
        optimizer = nt.KFAC(model, burn_in=1)
        x = torch.ones(8, model.layout.views(model.params)["weight"].shape[1])
        for _ in range(6):
            optimizer.step(x, torch.zeros(8, 2))
        assert (optimizer.following.last == 0) is waits
