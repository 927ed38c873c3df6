"""The paper's FITRE on models written apart from the compiler: convergence, rejection, state."""

from __future__ import annotations

import copy
import io
import math

import pytest
import torch

from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.model.factors import KroneckerFactors
from newtriton.runtime.optimizers.presets import FITRE
from newtriton.runtime.parts.protocols import Proposal, Solution, Status

from ..stand_in import MLP, Quadratic, StandIn, assert_identical, batch, broken, positive

CASES = ["kfac", "kfac+gradient", "subspace"]


def fitre(model, *arguments, **options) -> FITRE:
    """The paper's method, unless noise is given."""
    return FITRE(model, *arguments, **{"noise": None, **options})


def quadratic(**options) -> Quadratic:
    return Quadratic(positive(4, 1), positive(3, 2), **options)


@pytest.mark.parametrize("case", CASES)
def test_one_step_solves_a_quadratic_whose_factors_are_exact(case):
    model = quadratic()
    report = fitre(model, damping=0.0, max_radius=100.0, case=case).step(*batch())
    torch.testing.assert_close(model.params, model.target.reshape(-1), rtol=1e-9, atol=1e-11)
    assert report.accepted
    assert report.rho == pytest.approx(1.0, rel=1e-9)
    assert report.predicted == pytest.approx(report.loss, rel=1e-9)
    assert report.new_loss == pytest.approx(0.0, abs=1e-15)
    assert report.step_norm == pytest.approx(float(model.target.norm()))


def test_the_first_step_is_the_best_one_along_the_damped_direction():
    model = quadratic(weight_decay=0.3)
    lin = model.linearize(*batch())
    root = math.sqrt(0.5 + 0.3)  # weight decay joins the damping
    pi = math.sqrt(float(model.a.trace() / 4) / float(model.g.trace() / 3))
    a = model.a + pi * root * torch.eye(4, dtype=torch.float64)
    g = model.g + root / pi * torch.eye(3, dtype=torch.float64)
    r = torch.linalg.solve(torch.kron(g, a), lin.gradient)
    step = -r * (lin.gradient @ r) / (r @ lin.hessian() @ r)
    report = fitre(model, damping=0.5, max_radius=100.0).step(*batch())
    torch.testing.assert_close(model.params, step, rtol=1e-9, atol=1e-12)
    assert report.rho == pytest.approx(1.0)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_converges_through_a_small_radius(case, momentum):
    model = quadratic(weight_decay=0.1)
    optimizer = fitre(model, damping=0.1, max_radius=0.4, case=case, momentum=momentum)
    reports = [optimizer.step(*batch()) for _ in range(60)]
    assert all(r.step_norm <= 0.4 * (1 + 1e-9) for r in reports)
    assert reports[0].step_norm == pytest.approx(0.4)
    assert float(model.linearize(*batch()).gradient.norm()) < 1e-5


@pytest.mark.parametrize("factors", ["kfac", "empirical"])
def test_trains_a_network_and_never_goes_uphill(factors):
    model = MLP(weight_decay=1e-3)
    optimizer = fitre(model, factors=factors, case="subspace")
    reports = [optimizer.step(*batch()) for _ in range(30)]
    assert all(r.new_loss < r.loss for r in reports if r.accepted)
    losses = [r.loss for r in reports]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.3 * losses[0]
    assert model.accepted == sum(r.accepted for r in reports)


class Deceptive(Quadratic):
    """Its objective is higher wherever it is tried than where it was linearized."""

    trial: float | BaseException = math.inf

    def objective(self, x: torch.Tensor, y: torch.Tensor, training: bool = True) -> float:
        if isinstance(self.trial, BaseException):
            raise self.trial
        return self.trial


def deceptive() -> Deceptive:
    model = Deceptive(positive(4, 1), positive(3, 2))
    model.params.copy_(torch.linspace(0.1, 0.7, 12))
    return model


@pytest.mark.parametrize("trial", [1e9, math.inf, math.nan])
def test_a_rejected_step_leaves_the_parameters_bit_for_bit(trial):
    model = deceptive()
    model.trial = trial
    before = model.params.clone()
    optimizer = fitre(model, max_radius=1.0, momentum=0.5)
    report = optimizer.step(*batch())
    assert torch.equal(model.params, before)
    assert not report.accepted
    assert report.radius == optimizer.rule.radius == 0.5
    assert optimizer.rule.last is None
    assert model.accepted == 0
    assert report.rejected == 0, "a trial that failed is no step that could not be made"


def test_an_interrupt_at_the_trial_leaves_the_parameters_bit_for_bit():
    model = deceptive()
    model.trial = KeyboardInterrupt()
    before = model.params.clone()
    with pytest.raises(KeyboardInterrupt):
        fitre(model).step(*batch())
    assert torch.equal(model.params, before)


def test_a_step_that_overflows_is_never_tried():
    model = deceptive()
    model.trial = AssertionError("evaluated at parameters that are not finite")
    model.params.fill_(torch.finfo(torch.float64).max)
    optimizer = fitre(model)
    optimizer.rule.propose = lambda r, lin: Proposal(model.params.clone(), 1.0, 1.0)
    before = model.params.clone()
    assert not optimizer.step(*batch()).accepted
    assert torch.equal(model.params, before)


def test_reject_below():
    def accepted(**options) -> bool:
        model = deceptive()
        lin = model.linearize(*batch())
        model.trial = lin.objective - 1e-3  # far less than predicted
        return fitre(model, **options).step(*batch()).accepted

    assert not accepted()
    assert accepted(reject_below=1e-4)


def assert_refused(model: StandIn, optimizer: FITRE, word: str, data=None) -> dict:
    """Ten steps leave all as it was but the radius, and the tenth gives up.

    Returns the state before them.
    """
    data = data or batch()
    before, saved = model.params.clone(), optimizer.state_dict()
    for n in range(1, 10):
        report = optimizer.step(*data)
        assert (report.accepted, report.new_loss, report.step_norm) == (False, None, 0.0)
        assert report.rejected == n
        assert report.radius == optimizer.rule.max_radius * 0.5**n
        assert word in report.status
    with pytest.raises(NewtritonError, match=f"10 steps in a row.*{word}"):
        optimizer.step(*data)
    assert torch.equal(model.params, before)
    assert model.accepted == 0
    assert optimizer.rule.radius == optimizer.rule.max_radius * 0.5**10
    return saved


def test_a_loss_that_is_not_finite_changes_nothing_and_the_tenth_raises():
    model = MLP()
    optimizer = fitre(model)
    saved = assert_refused(model, optimizer, "loss nan", broken())
    after = optimizer.state_dict()
    for part in ("curvature", "solver"):
        assert_identical(after[part], saved[part])
    assert optimizer.step(*batch()).rejected == 0, "a good batch starts the count again"


class Steep(MLP):
    """A finite loss whose gradient is not."""

    def gradient(self, x, y):
        loss, gradient, statistics = super().gradient(x, y)
        return loss, gradient * torch.inf, statistics


def test_a_gradient_that_is_not_finite_is_refused():
    model = Steep()
    assert_refused(model, fitre(model), "gradient")


def test_a_failed_solve_is_refused():
    model = Quadratic(-1e9 * positive(4), positive(3))
    assert_refused(model, fitre(model), "factor")


def test_curvature_that_is_not_finite_is_refused():
    model = quadratic()
    a = torch.nan * model.a
    model.factors = lambda *_: {"layer": KroneckerFactors(a, model.g, (1, 1), False)}
    assert_refused(model, fitre(model), "curvature")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_direction_that_is_not_finite_is_refused(bad):
    model = quadratic()
    optimizer = fitre(model)
    optimizer.solver.solve = lambda c, d, g, _: Solution(g * bad, Status.SOLVED, {})
    assert_refused(model, optimizer, "direction")


def test_raised_damping_is_reported():
    a = torch.diag(torch.tensor([1.0, -0.3, 1.0, 1.0], dtype=torch.float64))
    report = fitre(Quadratic(a, positive(3)), damping=1e-4).step(*batch())
    assert report.damping_retries > 0
    assert "raised" in report.status


def test_momentum_carries_the_accepted_step():
    model = quadratic(weight_decay=0.2)
    optimizer = fitre(model, 0.5, max_radius=100.0, initial_radius=0.05, momentum=0.5)
    start = model.params.clone()
    optimizer.step(*batch())
    first = model.params - start
    optimizer.rule.radius = 100.0
    twin = quadratic(weight_decay=0.2)
    twin.params.copy_(model.params)
    before = model.params.clone()
    fitre(twin, damping=0.5, max_radius=100.0).step(*batch())
    optimizer.step(*batch())
    torch.testing.assert_close(model.params - before, twin.params - before + 0.5 * first)


@pytest.mark.parametrize(
    ("every", "gathered", "factorised"),
    [(4, 4, 4), ((2, 4), 6, 4), (1, 9, 9), ((1, 10), 9, 2)],
)
def test_factors_are_gathered_and_inverted_when_due(every, gathered, factorised):
    optimizer = fitre(MLP(), every=every, burn_in=2)
    for _ in range(9):
        optimizer.step(*batch())
    assert optimizer.curvature.gathered == gathered
    assert optimizer.solver.factorisations == factorised


@pytest.mark.parametrize("noise", [None, "wiener"])
@pytest.mark.parametrize("options", [{}, {"case": "subspace", "momentum": 0.9, "every": (2, 4)}])
def test_a_saved_state_resumes_bit_for_bit(options, noise):
    def make(seed: int) -> tuple[MLP, FITRE]:
        model = MLP(weight_decay=1e-3)
        radius = {} if noise else {"max_radius": 0.7}
        return model, fitre(model, burn_in=2, seed=seed, noise=noise, **radius, **options)

    model, optimizer = make(seed=1)
    for n in range(4):
        optimizer.step(*batch(n))
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    other_model, other = make(seed=2)
    other_model.params.copy_(model.params)
    other.load_state_dict(torch.load(file, weights_only=True))
    for n in range(4, 12):
        assert optimizer.step(*batch(n)) == other.step(*batch(n))
    assert torch.equal(model.params, other_model.params)


def test_a_saved_state_does_not_follow_the_optimizer():
    optimizer = fitre(MLP(), momentum=0.5, every=1)
    optimizer.step(*batch())
    state = optimizer.state_dict()
    kept = copy.deepcopy(state)
    for _ in range(3):
        optimizer.step(*batch())
    assert_identical(state, kept)
    assert not torch.equal(optimizer.state_dict()["rule"]["last"], kept["rule"]["last"])


def test_runs_repeat():
    def run() -> torch.Tensor:
        model = MLP()
        optimizer = fitre(model, seed=4)
        torch.rand(3)
        for n in range(5):
            optimizer.step(*batch(n))
        return model.params

    assert torch.equal(run(), run())


@pytest.mark.parametrize("damping", [-1.0, math.nan, math.inf])
def test_refuses_damping(damping):
    with pytest.raises(NewtritonError, match="damping"):
        fitre(MLP(), damping=damping)
