"""The rounding of a mean loss: float32 keeps to it, and steps that it hides change no rule."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import newtriton as nt
from newtriton.compiler.values import GivenOutputs, Labels
from newtriton.runtime.aten.executor import AtenExecutor
from newtriton.runtime.backend import Context
from newtriton.runtime.rounding.losses import LossRounding

from ..transfers import counted

LOSSES = {
    "ce": nt.CrossEntropyLoss(),
    "mse": nt.MSELoss(),
    "bce": nt.BCEWithLogitsLoss(),
}


def rounding_of(loss: str) -> LossRounding:
    model = nt.compile(nt.Linear(3), (2,), LOSSES[loss], backend="aten", device="cpu")
    return LossRounding(model.programs[True].losses)


def losses_of(rounding: LossRounding, z: Tensor, y: Tensor) -> Tensor:
    labels = y.to(z.dtype) if y.is_floating_point() else y
    feed = rounding.program.feed({GivenOutputs(): z, Labels(): labels})
    (losses,) = AtenExecutor(rounding.program.graph)(
        Context(len(z), z.dtype, z.device), feed
    ).values()
    return losses.double()


@pytest.mark.parametrize("scale", [1.0, 30.0, 1e3])
@pytest.mark.parametrize("fits", [True, False])
@pytest.mark.parametrize("loss", LOSSES)
def test_float32_errs_by_no_more_and_not_by_far_less(loss: str, fits: bool, scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    z, other = (scale * torch.randn(64, 3, generator=generator) for _ in range(2))
    chosen = z if fits else other
    y = {"ce": chosen.argmax(1), "mse": chosen, "bce": (chosen > 0).float()}[loss]
    rounding = rounding_of(loss)
    moved = z * (1 + 6e-8 * torch.randn(z.shape, generator=generator))
    errors = losses_of(rounding, moved, y) - losses_of(rounding, z.double(), y)
    bound = float(rounding(z, y))
    error, resolution = float(errors.abs().mean()), 1e-6 * (1.0 if loss == "ce" else scale)
    assert error <= bound <= 100 * error + resolution


def test_the_rounding_of_a_certain_class_is_that_of_its_sum_of_exponentials() -> None:
    """Its loss is 0, where the next number that float32 can give is 1e-7."""
    z, y = torch.tensor([[60.0, 0.0, -3.0]]).repeat(4, 1), torch.zeros(4, dtype=torch.int64)
    for dtype in (torch.float32, torch.float64):
        units = float(rounding_of("ce")(z.to(dtype), y)) / torch.finfo(dtype).eps
        assert 0.5 <= units <= 8.0
    assert not rounding_of("mse")(0.0 * z, 0.0 * z)


@pytest.mark.parametrize(("loss", "scale"), [("ce", math.log(3)), ("mse", 3.0), ("bce", 3.94)])
def test_the_scale_is_that_of_losses_at_0_and_1(loss: str, scale: float) -> None:
    assert rounding_of(loss).scale == pytest.approx(scale, rel=1e-3)


def test_a_change_that_is_a_share_of_the_loss_is_not_compared_with_rounding() -> None:
    model = nt.compile(nt.Linear(3), (2,), nt.CrossEntropyLoss(), backend="aten", device="cpu")
    lin = model.linearize(torch.ones(4, 2), torch.tensor([0, 1, 2, 0]))
    assert lin.hides(0.0) and lin.hides(1e-8) and not lin.hides(1e-5)
    with counted() as transfers:
        assert not lin.hides(0.01)
        assert not transfers.reads


@pytest.mark.parametrize("loss", ["ce", "mse"])
@pytest.mark.parametrize("make", [nt.FITRE, nt.KFAC, nt.KFRA, nt.NewtonCG])
def test_batches_without_a_loss_do_not_tighten_a_rule(make, loss: str) -> None:
    net = nt.Sequential(nt.Linear(16), nt.Tanh(), nt.Linear(3))
    model = nt.compile(net, (5,), LOSSES[loss], backend="aten", device="cpu")
    dict(model.named_parameters())["2.weight"].mul_(100.0)
    x = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
    x = x[model(x).topk(2, 1).values.diff(dim=1).abs()[:, 0] > 20.0]
    z = model(x)
    y = z.argmax(1) if loss == "ce" else z * (1 + 1e-7 * torch.randn_like(z))
    optimizer = make(model, sample=1.0) if make is nt.NewtonCG else make(model)
    before, params = (optimizer.rule.radius, optimizer.damping), model.params.clone()
    for _ in range(19):  # of K-FAC's γ, the twentieth step chooses the best
        report = optimizer.step(x, y)
        assert report.accepted and (report.rho is None or report.rho >= 0.25), report
        model.params.copy_(params)
    assert (optimizer.rule.radius or math.inf) >= (before[0] or math.inf)
    assert optimizer.damping <= before[1]  # rounding that agrees with the model by chance is good
    assert getattr(optimizer.rule, "damping", 0.01) <= 0.01


@pytest.mark.parametrize("loss", [nt.CrossEntropyLoss(), nt.SigmoidMarginLoss()])
def test_one_output_has_one_class(loss: nt.Loss) -> None:
    model = nt.compile(nt.Linear(1), (3,), loss, device="cpu")
    x, y = torch.ones(2, 3), torch.zeros(2, dtype=torch.int64)
    assert model.loss(x, y) == loss_at_certainty(loss)
    with pytest.raises(nt.NewtritonError, match="on 1 outputs"):
        model.loss(x, y + 1)


def loss_at_certainty(loss: nt.Loss) -> float:
    """The loss of the class that is certain: softmax gives 1 where there is one output."""
    if isinstance(loss, nt.SigmoidMarginLoss):
        return float(torch.sigmoid(torch.tensor(loss.delta * (loss.epsilon - 1.0))))
    return 0.0
