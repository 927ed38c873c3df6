"""The paper's FITRE on networks with batch norm: what a step changes, and how a run resumes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import newtriton as nt
from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.rules.trust_region import CASES

from ..problems import problem
from ..stand_in import assert_identical
from .failures import Failing, filled

OPTIONS = {"damping": 0.1, "max_radius": 0.5, "every": 2, "burn_in": 2, "noise": None}


def net() -> nt.Sequential:
    return nt.Sequential(
        nt.Conv2d(6, 3, padding=1), nt.BatchNorm2d(), nt.SiLU(), nt.MaxPool2d(2),
        nt.Conv2d(4, 3, groups=2, bias=False), nt.Tanh(), nt.Flatten(), nt.Linear(3),
    )  # fmt: skip


def made(criterion: object = None, **options: object) -> tuple[nt.Model, nt.FITRE]:
    loss = nt.CrossEntropyLoss() if criterion is None else criterion
    model = nt.compile(net(), (2, 8, 8), loss, dtype=torch.float64, weight_decay=1e-3)  # type: ignore[arg-type]
    return model, nt.FITRE(model, **{**OPTIONS, **options})  # type: ignore[arg-type]


def batches(count: int) -> list[tuple[Tensor, Tensor]]:
    """Images whose class is written into their mean."""
    generator = torch.Generator().manual_seed(5)
    result = []
    for _ in range(count):
        y = torch.randint(0, 3, (24,), generator=generator)
        x = torch.randn(24, 2, 8, 8, generator=generator, dtype=torch.float64)
        result.append((x + y.view(-1, 1, 1, 1) - 1.0, y))
    return result


RUNS = [
    *((nt.CrossEntropyLoss(), case, momentum) for case in CASES for momentum in (0.0, 0.9)),
    *((criterion, "kfac", 0.0) for criterion in (nt.MSELoss(), nt.BCEWithLogitsLoss())),
    *((criterion, "subspace", 0.9) for criterion in (nt.MSELoss(), nt.BCEWithLogitsLoss())),
]


@pytest.mark.parametrize(("criterion", "case", "momentum"), RUNS, ids=repr)
def test_the_loss_falls(criterion: object, case: str, momentum: float) -> None:
    _, optimizer = made(criterion, case=case, momentum=momentum)
    reports = [optimizer.step(x, y) for x, y in batches(12)]
    assert reports[-1].loss < 0.7 * reports[0].loss
    for report in reports:
        assert report.step_norm <= 0.5 * (1 + 1e-9)
        assert report.accepted == (report.rho is not None and report.rho >= 0.25)


def test_running_statistics_move_once_with_an_accepted_step_as_torchs() -> None:
    model, optimizer = made()
    module = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6)).double()
    module.load_state_dict({k: v for k, v in model.state_dict().items() if k[0] in "01"})
    ((x, y),) = batches(1)
    assert optimizer.step(x, y).accepted
    module(x)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        torch.testing.assert_close(model.buffers[f"1.{name}"], module.state_dict()[f"1.{name}"])


def test_a_rejected_step_changes_neither_parameters_nor_statistics() -> None:
    model, optimizer = made(reject_below=0.75, max_radius=1e4)
    optimizer.rule.judge = lambda *_: (False, -1.0)  # type: ignore[method-assign]
    before = model.state_dict()
    ((x, y),) = batches(1)
    report = optimizer.step(x, y)
    assert not report.accepted
    assert report.step_norm > 0
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_a_loss_that_is_not_finite_is_rejected_and_the_tenth_is_an_error() -> None:
    model, optimizer = made()
    ((x, y),) = batches(1)
    optimizer.step(x, y)
    model.params.mul_(1e300)
    before, radius = model.state_dict(), optimizer.rule.radius
    factors = optimizer.curvature.state_dict()
    for i in range(1, 10):
        report = optimizer.step(x, y)
        assert (report.accepted, report.rejected, report.new_loss) == (False, i, None)
        assert not math.isfinite(report.loss)
    assert optimizer.rule.radius == radius / 2**9
    with pytest.raises(NewtritonError, match="10 steps in a row"):
        optimizer.step(x, y)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert optimizer.curvature.updates == factors["updates"]
    assert torch.equal(optimizer.curvature.generator.get_state(), factors["generator"])


@pytest.mark.parametrize("stop", [1, 4])
def test_a_run_resumes_bit_for_bit(stop: int) -> None:
    data = batches(7)
    options = {"momentum": 0.9, "case": "subspace", "every": (2, 4)}
    model, optimizer = made(**options)
    for x, y in data[:stop]:
        optimizer.step(x, y)
    weights, state = model.state_dict(), optimizer.state_dict()
    for x, y in data[stop:]:
        optimizer.step(x, y)

    resumed, again = made(**options, seed=9)
    resumed.load_state_dict(weights)
    again.load_state_dict(state)
    for x, y in data[stop:]:
        again.step(x, y)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_two_runs_are_bitwise_equal() -> None:
    ends = []
    for _ in range(2):
        model, optimizer = made()
        for x, y in batches(4):
            optimizer.step(x, y)
        ends.append(model.params.clone())
    assert torch.equal(*ends)


def test_frequencies_of_gathering_and_inverting() -> None:
    _, optimizer = made(every=(2, 4), burn_in=0)
    for x, y in batches(8):
        optimizer.step(x, y)
    assert optimizer.curvature.gathered == 4
    assert optimizer.solver.factorisations == 2


def assert_unchanged(model: nt.Model, before: dict[str, Tensor]) -> None:
    """Parameters and running statistics are what they were, bit for bit."""
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_steps_too_long_for_the_model_are_rejected_and_leave_all_as_it_was() -> None:
    model, optimizer = made(max_radius=1e4, damping=1e-4, case="subspace", momentum=0.9)
    outcomes = set()
    for x, y in batches(8):
        before, last, radius = model.state_dict(), optimizer.rule.last, optimizer.rule.radius
        report = optimizer.step(x, y)
        outcomes.add(report.accepted)
        assert report.rho is not None
        if report.rho < 0.25:
            assert report.radius == radius / 2
        if not report.accepted:
            assert_unchanged(model, before)
            assert optimizer.rule.last is last
    assert outcomes == {True, False}


@pytest.mark.parametrize("what", ["x", "y"])
def test_a_batch_with_a_nan_is_an_error_and_changes_nothing(what: str) -> None:
    model, optimizer = made(nt.MSELoss(), momentum=0.9)
    (x, y), (other, _) = batches(2)
    rows = nn.functional.one_hot(y, 3).double()
    optimizer.step(x, rows)
    before, state = model.state_dict(), optimizer.state_dict()
    spoilt = {"x": other.clone(), "y": rows.clone()}
    spoilt[what].view(-1)[7] = math.nan
    with pytest.raises(NewtritonError, match="NaN"):
        optimizer.step(spoilt["x"], spoilt["y"])
    assert_unchanged(model, before)
    assert_identical(optimizer.state_dict(), state)


def regression(outputs: int) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, the same with a column of ones, targets off any line."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(20, 4, generator=generator, dtype=torch.float64) * torch.arange(1, 5)
    y = torch.randn(20, outputs, generator=generator, dtype=torch.float64)
    return x, torch.cat([x, torch.ones(20, 1, dtype=torch.float64)], 1), y


def linear(outputs: int, weight_decay: float) -> nt.Model:
    options = {"dtype": torch.float64, "weight_decay": weight_decay}
    return nt.compile(nt.Linear(outputs), (4,), nt.MSELoss(), **options)  # type: ignore[arg-type]


def stacked(model: nt.Model) -> Tensor:
    """Weight and bias as the coefficients of a regression."""
    weight, bias = model.parameters()
    return torch.cat([weight, bias[:, None]], 1).T


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("factors", ["kfac", "empirical"])
def test_one_step_solves_linear_regression(factors: str, case: str) -> None:
    """With one output G is a number, so the direction is Newton's whatever the labels drawn."""
    x, homogeneous, y = regression(1)
    model = linear(1, weight_decay=0.0)
    optimizer = nt.FITRE(model, 0.0, 100.0, factors=factors, case=case, noise=None)
    report = optimizer.step(x, y)
    assert report.rho == pytest.approx(1.0, rel=1e-9)
    optimum = torch.linalg.lstsq(homogeneous, y).solution
    torch.testing.assert_close(stacked(model), optimum, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_weight_decay_leads_to_ridge_regression(momentum: float) -> None:
    x, homogeneous, y = regression(3)
    model = linear(3, weight_decay=0.7)
    optimizer = nt.FITRE(model, 0.0, 1.0, momentum=momentum, noise=None)
    for _ in range(60):
        optimizer.step(x, y)
    normal = 2 * homogeneous.T @ homogeneous / len(x) + 0.7 * torch.eye(5, dtype=torch.float64)
    optimum = torch.linalg.solve(normal, 2 * homogeneous.T @ y / len(x))
    torch.testing.assert_close(stacked(model), optimum, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("every", [0, (0, 4), (2, 0), (1, 2, 3), 2.5, (2.0, 4), "5", None])
def test_refuses_frequencies(every: object) -> None:
    with pytest.raises(NewtritonError, match="every is "):
        made(every=every)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("make", [nt.KFRA, nt.KFLR, nt.NewtonCG])
def test_a_loss_without_a_bound_ends_in_a_sentence_at_finite_parameters(make, dtype) -> None:
    for loss in (lambda z, y: z * z * z - y * z, lambda z, y: -1.0 * (z - y) * (z - y)):
        criterion = nt.Criterion(loss, root="clip")
        net = nt.Sequential(nt.Linear(8), nt.Tanh(), nt.Linear(3))
        model = nt.compile(net, (5,), criterion, backend="aten", device="cpu", dtype=dtype)
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(16, 5, generator=generator, dtype=dtype)
        targets = torch.randn(16, 3, generator=generator, dtype=dtype)
        optimizer = make(model)
        try:
            for _ in range(40):
                optimizer.step(x, targets)
        except nt.NewtritonError as error:
            assert "steps in a row were refused" in str(error)
        assert math.isfinite(model.objective(x, targets))


# --- before the first step ------------------------------------------------------------------------


def test_the_first_factors_may_be_those_of_a_larger_sample() -> None:
    """Five mini-batches in place of one (Kylasa et al. 2020, section 3.1.1)."""
    model, [(x, y)] = problem("mlp")
    options = {"factors": "kflr", "burn_in": 0, "every": 2, "moving_average": 0.75, "noise": None}
    optimizer, before = nt.FITRE(model, **options), model.params.clone()  # type: ignore[arg-type]
    optimizer.bootstrap([*zip(x.split(6), y.split(6), strict=True)])
    assert torch.equal(model.params, before) and optimizer.steps == 0
    larger = model.linearize(x, y).kronecker_factors("kflr")
    of_batch = model.linearize(x[:6], y[:6]).kronecker_factors("kflr")
    curvature = optimizer.curvature
    assert curvature.unseen == pytest.approx(1 / len(x))  # type: ignore[attr-defined]
    for layer, factors in curvature.factors.items():  # type: ignore[attr-defined]
        for name, found in factors.tensors.items():
            torch.testing.assert_close(found, larger[layer].tensors[name])
    optimizer.step(x[:6], y[:6])
    for layer, factors in curvature.factors.items():  # type: ignore[attr-defined]
        for name, found in factors.tensors.items():
            mean = torch.lerp(larger[layer].tensors[name], of_batch[layer].tensors[name], 0.25)
            torch.testing.assert_close(found, mean)


def test_the_papers_fitre_starts_from_the_first_batch_alone() -> None:
    model, _ = problem("mlp")
    burn_ins = [
        nt.FITRE(model, **options).curvature.burn_in  # type: ignore[attr-defined, arg-type]
        for options in ({}, {"noise": None}, {"noise": None, "burn_in": 5})
    ]
    assert burn_ins == [10, 1, 5]


def test_what_cannot_be_gathered_before_a_step_is_refused() -> None:
    model, [(x, y)] = problem("mlp")
    for make in (nt.NewtonCG, lambda m: nt.SecondOrder(m, "ggn", "steihaug")):
        with pytest.raises(NewtritonError, match="'ggn' is no average over batches"):
            make(model).bootstrap([(x, y)])
    optimizer = nt.FITRE(model)
    with pytest.raises(NewtritonError, match="no batches"):
        optimizer.bootstrap([])
    optimizer.curvature.bootstrap = lambda lin: False  # type: ignore[attr-defined]
    with pytest.raises(NewtritonError, match="curvature of batch 1 is not finite"):
        optimizer.bootstrap([(x, y)])
    optimizer.step(x, y)
    with pytest.raises(NewtritonError, match="before the first step"):
        optimizer.bootstrap([(x, y)])


def test_batches_that_are_refused_leave_nothing_of_those_before_them() -> None:
    model, [(x, y)] = problem("mlp")
    optimizer, other = nt.FITRE(model), nt.FITRE(model)
    with pytest.raises(NewtritonError, match="a batch is 3"):
        optimizer.bootstrap([(x, y), 3])  # type: ignore[list-item]
    assert optimizer.curvature.gathered == 0  # type: ignore[attr-defined]
    for each in (optimizer, other):
        each.bootstrap([(x, y)])
    factors, expected = optimizer.curvature.factors, other.curvature.factors  # type: ignore[attr-defined]
    for layer, pair in factors.items():
        assert torch.equal(pair.A, expected[layer].A) and torch.equal(pair.G, expected[layer].G)


def test_a_bootstrap_that_fails_leaves_the_averages_as_they_were() -> None:
    model, [(x, y)] = problem("mlp")
    optimizer = nt.FITRE(model)
    before = optimizer.state_dict()
    with pytest.raises(nt.NewtritonError):
        optimizer.bootstrap([(x, y), (math.nan * x, y)])
    assert_identical(optimizer.state_dict(), before)


def test_a_refused_step_says_where_it_led() -> None:
    model, [(x, y)] = problem("mlp")
    optimizer = nt.EACG(model, lr=1e3, noise=None)
    reports = [optimizer.step(x, y) for _ in range(3)]
    optimizer = nt.SecondOrder(model, "kfac", "kfi", nt.Fixed(1e3, refuse=True))
    reports += [optimizer.step(x, y) for _ in range(3)]
    refused = [report for report in reports if not report.accepted]
    assert refused
    assert all("the step was refused: it " in report.status for report in refused)


def test_an_average_that_makes_steps_vanish_is_taken_back(monkeypatch) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(16, 4, generator=generator)
    data = x, x[:, :2].argmax(1)
    net = nt.Sequential(nt.Linear(3), nt.Tanh(), nt.Linear(2))
    model = nt.compile(net, (4,), nt.CrossEntropyLoss(), seed=0, device="cpu", backend="aten")
    optimizer = nt.KFRA(model, average=0.9)
    first = optimizer.step(*data).loss
    failing = Failing(nt.Linearization.kronecker_factors, filled(1e300), last=0)
    monkeypatch.setattr(nt.Linearization, "kronecker_factors", failing)
    statuses = set[str]()
    with pytest.raises(nt.NewtritonError, match=r"10 steps in a row.*a direction that vanishes"):
        for _ in range(20):
            statuses.add(optimizer.step(*data).status)
    assert statuses == {"a direction that vanishes: curvature is too large"}
    assert min(optimizer.step(*data).loss for _ in range(20)) < first
