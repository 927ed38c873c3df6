"""Reports: what is not finite is named, and patience has an end."""

import math

import pytest
import torch

import newtriton as nt
from newtriton.runtime.optimizers.report import PATIENCE, Patience, not_finite, refusal
from newtriton.runtime.parts.protocols import Proposal


def test_what_is_not_finite_is_named():
    fine = torch.ones(3)
    assert not_finite(1.0, fine) is None
    assert not_finite(math.nan, fine) == "loss nan"
    for number in (math.nan, -math.inf):
        assert not_finite(1.0, torch.tensor([1.0, number])) == "a gradient that is not finite"


def test_patience_counts_steps_in_a_row():
    patience = Patience()
    for _ in range(PATIENCE - 1):
        patience.count("loss nan")
    assert patience.rejected == PATIENCE - 1
    patience.count(None)
    assert patience.rejected == 0


def test_the_last_of_them_is_an_error_that_says_why():
    patience = Patience()
    for _ in range(PATIENCE - 1):
        patience.count("loss nan")
    with pytest.raises(nt.NewtritonError, match=r"10 steps in a row .* loss inf"):
        patience.count("loss inf")


def test_what_a_method_does_not_have_is_none():
    report = nt.StepReport(1.0, None, False, 0.0, "loss nan")
    found = (report.rho, report.predicted, report.radius, report.damping, report.lr, report.gain)
    assert found == (None,) * 6
    assert (report.damping_retries, report.cg_iterations, report.halvings) == (0, 0, 0)


def test_the_gain_is_that_of_the_noise_which_judges_the_step() -> None:
    model = nt.compile(nt.Linear(3), (3,), nt.CrossEntropyLoss(), device="cpu")
    x, y = torch.eye(3), torch.arange(3)
    optimizer = nt.KFAC(model)
    gains = [optimizer.step(x + 0.1 * n, y).gain for n in range(6)]
    assert gains[-1] == optimizer.noise.gain
    assert gains[0] == 1.0 and all(0.0 < gain <= 1.0 for gain in gains)
    assert len(set(gains)) > 1
    assert nt.KFAC(model, noise=None).step(x, y).gain is None


def test_a_refusal_says_where_the_step_led():
    proposal = Proposal(torch.ones(1), 1.0, 0.25)
    assert refusal(1.0, math.nan, proposal).endswith("leads to a loss of nan")
    said = "takes the loss from 1 to 1.5, where its model promises 0.75"
    assert refusal(1.0, 1.5, proposal).endswith(said)


@pytest.mark.parametrize(
    "make",
    [
        nt.FITRE,
        lambda model: nt.TorchOptimizer(model, torch.optim.LBFGS, lr=0.1),
        lambda model: nt.TorchOptimizer(model, torch.optim.SGD, lr=0.1),
        lambda model: nt.Preconditioned(model, torch.optim.SGD, lr=0.1),
    ],
)
def test_a_batch_whose_variance_overflows_is_refused(make) -> None:
    net = nt.Sequential(nt.BatchNorm1d(), nt.Linear(3))
    model = nt.compile(net, (3,), nt.CrossEntropyLoss(), device="cpu")
    optimizer = make(model)
    x, y = torch.randn(24, 3, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 3
    before = model.state_dict()
    data = ([(1e20 * x, y)],) if optimizer.takes_data else (1e20 * x, y)
    report = optimizer.step(*data)
    assert report.status == "a variance in batch norm that is not finite"
    assert not report.accepted
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)
    assert optimizer.step(*([(x, y)],) if optimizer.takes_data else (x, y)).accepted
