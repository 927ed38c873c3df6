"""The papers' methods as presets: their defaults, what a step does, and how a run resumes."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

import newtriton as nt
from newtriton.compiler.curvature.factors import KINDS
from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.model.factors import MeanFactors
from newtriton.runtime.optimizers.presets import refresh_intervals
from newtriton.runtime.optimizers.second_order import SEARCH_FAILED
from newtriton.runtime.parts.protocols import Solution, Status

from ..problems import LOSSES, problem
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


def parts_of(x: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The batch in three of unequal size."""
    return [(x[:10], y[:10]), (x[10:17], y[10:17]), (x[17:], y[17:])]


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


# --- noise ---------------------------------------------------------------------------------------

NOISY = [nt.FITRE, nt.KFAC, nt.KFRA, nt.KFLR, nt.EACG, nt.NewtonCG]


def parts(x: Tensor, y: Tensor, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of several sizes, in turn."""
    for k in range(count):
        rows = torch.arange(k % 3, len(x), 2 + k % 2)
        yield x[rows], y[rows]


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


# --- the papers' methods, step by step -----------------------------------------------------------


class Layers:
    """Averaged Kronecker factors of a perceptron, and solves with them: none of it the library's.

    Args:
        model: the model, of linear layers with biases.
    """

    def __init__(self, model: nt.Model) -> None:
        self.model, self.averages = model, dict[str, tuple[Tensor, Tensor]]()

    def gather(self, lin: nt.Linearization, weight: float) -> None:
        """Averages the factors of the labels there are."""
        for layer, new in lin.kronecker_factors("empirical").items():
            old = self.averages.get(layer, (new.A, new.G))
            pair = zip(old, (new.A, new.G), strict=True)
            a, g = ((1.0 - weight) * was + weight * now for was, now in pair)
            self.averages[layer] = a, g

    def solve(self, gradient: Tensor, damping: float) -> Tensor:
        """Returns (A + π√γ I)⁻¹ ⊗ (G + √γ/π I)⁻¹ times the gradient, with Kronecker products."""
        flat = torch.zeros_like(gradient)
        g, x = self.model.unflatten(gradient), self.model.unflatten(flat)
        for layer, (a, b) in self.averages.items():
            pi = ((a.trace() / len(a)) / (b.trace() / len(b))).sqrt()
            root = damping**0.5
            eye = torch.eye(len(a), dtype=a.dtype), torch.eye(len(b), dtype=a.dtype)
            block = torch.kron(b + root / pi * eye[1], a + pi * root * eye[0])
            m = torch.cat([g[f"{layer}.weight"], g[f"{layer}.bias"][:, None]], 1)
            solved = torch.linalg.solve(block, m.reshape(-1)).view_as(m)
            x[f"{layer}.weight"].copy_(solved[:, :-1])
            x[f"{layer}.bias"].copy_(solved[:, -1])
        return flat


def taken(model: nt.Model, before: Tensor, step: Tensor, x: Tensor, y: Tensor) -> float:
    """Takes a step; returns the loss there."""
    model.params.copy_(before + step)
    return model.objective(x, y)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_fitre_without_noise_is_algorithm_1(momentum: float) -> None:
    model, [(x, y)] = problem("mlp")
    twin, _ = problem("mlp")
    optimizer = nt.FITRE(
        model, 0.05, 2.5, factors="empirical", momentum=momentum, every=1, burn_in=2,
        moving_average=0.9, reject_below=0.25, noise=None,
    )  # fmt: skip
    layers, radius, last, outcomes = Layers(twin), 2.5, None, set[tuple[bool, bool]]()
    for k, (bx, by) in enumerate(parts(x, y, 12)):
        lin, before = twin.linearize(bx, by), twin.params.clone()
        layers.gather(lin, 1.0 / (k + 1) if k < 2 else 0.1)
        r = layers.solve(lin.gradient, 0.05 + twin.weight_decay)
        bent, slope = float(r @ lin.hvp(r)), float(lin.gradient @ r)
        longest = radius / float(r.norm())
        eta = min(slope / bent, longest) if bent > 0.0 else longest
        step = -eta * r

        def falls(s: Tensor, lin: nt.Linearization = lin) -> float:
            return -float(lin.gradient @ s + 0.5 * s @ lin.hvp(s))

        if last is not None and momentum:
            carried = step + momentum * last
            carried = carried * min(1.0, radius / float(carried.norm()))
            step = carried if falls(carried) > 0.0 else step
        predicted = falls(step)
        rho = (lin.objective - taken(twin, before, step, bx, by)) / predicted
        outcomes.add((rho >= 0.25, float(step.norm()) > 0.999 * radius))
        radius = min(2.0 * radius, 2.5) if rho >= 0.75 else radius / 2.0 if rho < 0.25 else radius
        if rho >= 0.25:
            last = step
        else:
            twin.params.copy_(before)
        report = optimizer.step(bx, by)
        assert report.rho == pytest.approx(rho, rel=1e-7)
        assert report.radius == radius
        torch.testing.assert_close(model.params, twin.params, rtol=1e-10, atol=1e-10)
    assert outcomes >= {(True, False), (True, True), (False, True)}, (
        "accepted, at the edge, refused"
    )


class EmpiricalKFAC(nt.KFAC):
    """K-FAC without draws."""

    factors = "empirical"


def test_kfac_without_noise_is_the_papers_model_of_two_directions() -> None:
    """Section 7, and section 6.5: λ follows ρ every five steps. γ stays for twenty."""
    model, [(x, y)] = problem("mlp")
    twin, _ = problem("mlp")
    optimizer = EmpiricalKFAC(model, 0.03, every=1, burn_in=4, moving_average=0.9, noise=None)
    layers, strength, last = Layers(twin), 0.03, None
    for k, (bx, by) in enumerate(parts(x, y, 15)):
        lin, before = twin.linearize(bx, by), twin.params.clone()
        layers.gather(lin, 1.0 / (k + 1) if k < 4 else 0.1)
        delta = layers.solve(lin.gradient, 0.03 + twin.weight_decay)
        span = torch.stack([delta] if last is None else [delta, last])
        products = torch.stack([lin.ggnvp(v) for v in span]) + strength * span
        b, inside = span @ lin.gradient, span @ products.T
        c = -torch.linalg.solve(inside, b)
        if last is not None and not 0.0 <= float(c[1]) <= 1.0:  # the bounds of `QuadraticModel`
            c[1] = c[1].clamp(0.0, 1.0)
            c[0] = -(b[0] + inside[0, 1] * c[1]) / inside[0, 0]
        step, predicted = c @ span, -float(b @ c + 0.5 * c @ inside @ c)
        rho = (lin.objective - taken(twin, before, step, bx, by)) / predicted
        assert rho > 0.0, "none of these is refused"
        last = step
        if (k + 1) % 5 == 0:
            strength *= 0.95**5 if rho > 0.75 else 0.95**-5 if rho < 0.25 else 1.0
        report = optimizer.step(bx, by)
        assert report.rho == pytest.approx(rho, rel=1e-7)
        assert optimizer.rule.damping == pytest.approx(strength)  # type: ignore[attr-defined]
        torch.testing.assert_close(model.params, twin.params, rtol=1e-10, atol=1e-10)
    assert strength != 0.03


def test_eacg_without_noise_takes_every_step() -> None:
    """θ ← θ + ηd, ((1 − α)(C + ηI) + αI) d = −g, whatever the loss says."""
    model, [(x, y)] = problem("mlp", weight_decay=0.01)
    twin, _ = problem("mlp", weight_decay=0.01)
    optimizer = nt.EACG(
        model, 2.5, 0.05, factors="empirical", limit=200, tolerance=1e-14, noise=None
    )
    rises = 0
    for bx, by in parts(x, y, 6):
        lin, step = twin.linearize(bx, by), torch.zeros_like(twin.params)
        factors = lin.kronecker_factors("empirical", means=["0", "2"])
        for name, g in twin.unflatten(lin.gradient).items():
            layer, kind = name.split(".")
            mean = factors[layer].mean  # type: ignore[union-attr]
            a = torch.outer(mean, mean) if kind == "weight" else torch.ones(1, 1).double()
            c = torch.kron(factors[layer].G, a)  # type: ignore[union-attr]
            eye = torch.eye(len(c), dtype=torch.float64)
            d = torch.linalg.solve(0.95 * (c + 0.01 * eye) + 0.05 * eye, -g.reshape(-1))
            twin.unflatten(step)[name].copy_(d.view_as(g))
        twin.params.add_(step, alpha=2.5)
        report = optimizer.step(bx, by)
        rises += report.new_loss > report.loss  # type: ignore[operator]
        assert report.accepted
        assert report.lr == 2.5
        torch.testing.assert_close(model.params, twin.params, rtol=1e-9, atol=1e-10)
    assert rises


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
