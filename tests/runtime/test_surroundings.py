"""What a caller's program may have around calls: inference mode, another default device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import newtriton as nt
from tests.tolerances import assert_close

PRESETS = {
    "FITRE": nt.FITRE, "KFAC": nt.KFAC, "KFLR": nt.KFLR, "KFRA": nt.KFRA, "EACG": nt.EACG,
    "NewtonCG": nt.NewtonCG, "L-BFGS": lambda model: nt.TorchOptimizer(model, torch.optim.LBFGS),
}  # fmt: skip
LABELS = torch.arange(60) % 3


@contextmanager
def default_device() -> Iterator[None]:
    """Tensors that are made without a device have no elements."""
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


def compiled() -> nt.Model:
    net = nt.Sequential(nt.Linear(8, init="sparse"), nt.Tanh(), nt.Dropout(0.2), nt.Linear(3))
    return nt.compile(net, (4,), nt.CrossEntropyLoss(), backend="aten", device="cpu", seed=1)


def inputs() -> torch.Tensor:
    return torch.randn(60, 4, generator=torch.Generator().manual_seed(0))


def run(name: str, x: torch.Tensor) -> torch.Tensor:
    """Parameters after some epochs with validation, from the seed on."""
    model = compiled()
    batches = nt.Batches(x, LABELS, 30)
    nt.fit(model, PRESETS[name](model), batches, [(x, LABELS)], epochs=3, progress=False)
    return model.params


@pytest.mark.parametrize("around", [torch.inference_mode, default_device])
@pytest.mark.parametrize("name", PRESETS)
def test_runs_are_the_same_inside(name: str, around: Callable[[], torch.inference_mode]) -> None:
    expected, x = run(name, inputs()), inputs()
    with around():
        found = run(name, x)
    assert torch.equal(found, expected)
    assert not found.is_inference()


def test_what_was_made_in_inference_mode_is_taken() -> None:
    with torch.inference_mode():
        x, y, model = inputs(), LABELS.clone(), compiled()
        optimizer = nt.KFAC(model)
        optimizer.step(x, y)
    other = compiled()
    theirs = nt.KFAC(other)
    for _ in range(2):
        theirs.step(inputs(), LABELS)
    optimizer.step(x, y)
    assert torch.equal(model.params, other.params)
    lin, same = model.linearize(x, y), other.linearize(inputs(), LABELS)
    with torch.inference_mode():
        x.zero_()
    assert_close(lin.hvp(model.params), same.hvp(other.params))


def test_data_are_the_same_with_another_default_device() -> None:
    images = torch.randint(256, (6, 1, 8, 8), dtype=torch.uint8)

    def batches() -> list[torch.Tensor]:
        pair = TensorDataset(images / 255, LABELS[:6])
        found = [nt.load("digits", preprocessing=("pixel-mean", "unit-variance", "crop-flip"))[0]]
        found += [nt.load((pair, pair), preprocessing=("standard", "min-max"))[0]]
        return [x for part in found for x, _ in nt.Batches(*part, 500)] + [nt.curves(3).x]

    expected = batches()
    with default_device():
        found = batches()
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def autocast() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


@pytest.mark.parametrize("around", [torch.inference_mode, default_device, autocast])
def test_a_module_is_captured_inside(around: Callable[[], AbstractContextManager[Any]]) -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))
    x = inputs().reshape(15, 1, 4, 4)
    with around():
        model = nt.from_torch(module, input_shape=(1, 4, 4), loss=nt.CrossEntropyLoss())
        report = nt.FITRE(model).step(x, LABELS[:15])
    assert report.loss > model.objective(x, LABELS[:15])


def test_parameters_load_and_flatten_as_tensors_do() -> None:
    module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 3))
    model, given = compiled(), dict(module.named_parameters())
    flat = model.flatten(given)
    model.load_state_dict(given)
    assert torch.equal(model.params, flat)
    assert not model.params.requires_grad
    assert torch.equal(model.state_dict()["0.weight"], module[0].weight)
