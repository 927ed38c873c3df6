"""Optimizers of torch.optim that look at shapes get the parameters in PyTorch's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import newtriton as nt
from tests.tolerances import assert_close

Y = torch.arange(12) % 3


class Rowwise(torch.optim.Optimizer):
    """A user's optimizer: each row of a matrix is divided by its length."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                rows = p.grad.flatten(1) if p.dim() > 1 else p.grad[None]
                p.sub_(p.grad / rows.norm() * group["lr"])
                self.state[p]["count"] = self.state[p].get("count", 0) + 1


def twins(biases: bool) -> tuple[nt.Model, nn.Module]:
    net = nt.Sequential(nt.Linear(6), nt.Tanh(), nt.Linear(3))
    model = nt.compile(
        net, (5,), nt.CrossEntropyLoss(), backend="aten", device="cpu", dtype=torch.float64
    )
    return model, frozen(model, nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)), biases)


def images(biases: bool) -> tuple[nt.Model, nn.Module]:
    net = nt.Sequential(nt.Conv2d(4, 3), nt.Tanh(), nt.Flatten(), nt.Linear(3))
    model = nt.compile(
        net, (2, 5, 5), nt.CrossEntropyLoss(), backend="aten", device="cpu", dtype=torch.float64
    )
    module = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(36, 3))
    return model, frozen(model, module, biases)


def frozen(model: nt.Model, module: nn.Module, biases: bool) -> nn.Module:
    module.double().load_state_dict(model.state_dict())
    for name, parameter in module.named_parameters():
        if not biases and name.endswith("bias"):
            parameter.requires_grad_(False)
            model.freeze(name)
    return module


@pytest.mark.parametrize(
    ("cls", "options", "made", "biases"),
    [
        (torch.optim.Adafactor, {"lr": 0.1}, twins, True),
        (torch.optim.Adafactor, {"lr": 0.1}, images, False),
        (torch.optim.Muon, {"lr": 0.1}, twins, False),
        (Rowwise, {"lr": 0.1}, images, True),
    ],
)
def test_steps_are_those_of_pytorch_and_state_is_resumed(
    cls: Any, options: dict[str, Any], made: Any, biases: bool
) -> None:
    model, module = made(biases)
    optimizer = nt.TorchOptimizer(model, cls, **options)
    theirs = cls([p for p in module.parameters() if p.requires_grad], **options)
    x = torch.randn(12, *model.input_shape, dtype=torch.float64)
    for step in range(5):
        optimizer.step(x, Y)
        theirs.zero_grad()
        cross_entropy(module(x), Y).backward()
        theirs.step()
        if step == 2:
            state = optimizer.state_dict()
            optimizer = nt.TorchOptimizer(model, cls, **options)
            optimizer.load_state_dict(state)
    for name, value in model.state_dict().items():
        assert_close(value, module.state_dict()[name])


def test_a_step_that_is_not_finite_is_taken_back_with_the_state() -> None:
    model, _ = twins(biases=True)
    optimizer = nt.TorchOptimizer(model, torch.optim.Adafactor, lr=0.1)
    x = torch.randn(12, 5, dtype=torch.float64)
    optimizer.step(x, Y)
    before, state = model.params.clone(), optimizer.state_dict()["optimizer"]["state"]
    optimizer.optimizer.param_groups[0]["weight_decay"] = float("inf")
    assert not optimizer.step(x, Y).accepted
    assert torch.equal(model.params, before)
    for i, values in optimizer.state_dict()["optimizer"]["state"].items():
        for name, value in values.items():
            assert torch.equal(value, state[i][name])


def test_a_state_of_other_shapes_is_refused() -> None:
    model, _ = twins(biases=True)
    optimizer = nt.TorchOptimizer(model, torch.optim.Adafactor)
    optimizer.step(torch.randn(12, 5, dtype=torch.float64), Y)
    other = nt.TorchOptimizer(images(biases=True)[0], torch.optim.Adafactor)
    with pytest.raises(nt.NewtritonError, match=r"has shape .*, of a parameter of shape"):
        other.load_state_dict(optimizer.state_dict())
    fewer = nt.TorchOptimizer(
        nt.compile(nt.Linear(3), (5,), nt.CrossEntropyLoss(), device="cpu"), torch.optim.Adafactor
    )
    with pytest.raises(nt.NewtritonError, match="2 parameters"):
        fewer.load_state_dict(optimizer.state_dict())


@pytest.mark.parametrize(
    "cls",
    ["adam", torch.optim.SGD([torch.zeros(1)]), lambda parameters: 3, None],
    ids=["name", "instance", "function", "none"],
)
def test_what_is_no_class_is_told_what_to_give(cls: Any) -> None:
    model, _ = twins(biases=True)
    with pytest.raises(nt.NewtritonError, match=r"give a class of torch\.optim itself, e\.g\."):
        nt.TorchOptimizer(model, cls)


def test_classes_that_cannot_take_the_parameters_say_why() -> None:
    model, _ = twins(biases=True)
    with pytest.raises(nt.NewtritonError, match=r"torch\.optim\.Muon refuses .*2D"):
        nt.TorchOptimizer(model, torch.optim.Muon)
    with pytest.raises(nt.NewtritonError, match="SparseAdam takes sparse gradients"):
        nt.TorchOptimizer(model, torch.optim.SparseAdam)
