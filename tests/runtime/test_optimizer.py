"""FITRE on compiled networks with batch norm: what a step changes, and how a run resumes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import newtriton as nt
from newtriton.compiler.errors import NewtritonError

OPTIONS = {"damping": 0.1, "max_radius": 0.5, "every": 2, "burn_in": 2}


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


LOSSES = [nt.CrossEntropyLoss(), nt.MSELoss(), nt.BCEWithLogitsLoss()]
CASES = [("kfac", 0.0), ("kfac", 0.9), ("kfac+gradient", 0.0), ("subspace", 0.9)]


@pytest.mark.parametrize("criterion", LOSSES, ids=repr)
@pytest.mark.parametrize(("case", "momentum"), CASES)
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


@pytest.mark.parametrize("stop", [1, 3, 4])
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
