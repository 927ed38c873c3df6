"""Norms against PyTorch's, in training and evaluation, and what their options refuse."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import nn

import newtriton as nt
from newtriton.compiler.language.network import Layer
from tests.compiler.functions.oracle import random

from .oracle import same_layer

FEATURES, SEQUENCE, IMAGE = (5, 4), (3, 4, 5), (3, 4, 3, 5)
LAYERS: dict[str, tuple[Layer, nn.Module, list[tuple[int, ...]]]] = {
    "BatchNorm1d": (nt.BatchNorm1d(), nn.BatchNorm1d(4), [FEATURES, SEQUENCE]),
    "BatchNorm1d bare": (
        nt.BatchNorm1d(4, affine=False, eps=1e-3),
        nn.BatchNorm1d(4, affine=False, eps=1e-3),
        [FEATURES, SEQUENCE],
    ),
    "BatchNorm2d": (nt.BatchNorm2d(4), nn.BatchNorm2d(4), [IMAGE]),
    "InstanceNorm1d": (nt.InstanceNorm1d(), nn.InstanceNorm1d(4), [SEQUENCE]),
    "InstanceNorm2d": (
        nt.InstanceNorm2d(4, affine=True), nn.InstanceNorm2d(4, affine=True), [IMAGE]
    ),
    "GroupNorm": (nt.GroupNorm(2), nn.GroupNorm(2, 4), [FEATURES, SEQUENCE, IMAGE]),
    "GroupNorm stated": (
        nt.GroupNorm(4, 4, affine=False), nn.GroupNorm(4, 4, affine=False), [SEQUENCE, IMAGE]
    ),
    "LayerNorm": (nt.LayerNorm(), nn.LayerNorm(4), [FEATURES, (2, 3, 4)]),
    "LayerNorm stated": (nt.LayerNorm(5, bias=False), nn.LayerNorm(5, bias=False), [SEQUENCE]),
    "LayerNorm of rows": (nt.LayerNorm((4, 5)), nn.LayerNorm((4, 5)), [SEQUENCE]),
    "LayerNorm of images": (nt.LayerNorm((4, 3, 5)), nn.LayerNorm((4, 3, 5)), [IMAGE]),
    "LayerNorm of pixels": (
        nt.LayerNorm([3, 5], elementwise_affine=False),
        nn.LayerNorm([3, 5], elementwise_affine=False),
        [IMAGE],
    ),
    "RMSNorm": (nt.RMSNorm(), nn.RMSNorm(4), [FEATURES, (2, 3, 4)]),
    "RMSNorm stated": (nt.RMSNorm(5, eps=1e-3), nn.RMSNorm(5, eps=1e-3), [SEQUENCE, IMAGE]),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_pytorchs(name: str) -> None:
    layer, module, shapes = LAYERS[name]
    same_layer(layer, module, *(random(*shape) for shape in shapes))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_machine_epsilon_is_that_of_the_models_dtype(dtype: torch.dtype) -> None:
    net = nt.Sequential(nt.RMSNorm(), nt.Linear(1, bias=False))
    model = nt.compile(net, (4,), nt.MSELoss(), dtype=dtype, backend="aten", device="cpu")
    theirs = nn.Sequential(nn.RMSNorm(4), nn.Linear(4, 1, bias=False)).to(dtype)
    theirs.load_state_dict(model.state_dict())
    x = torch.full((1, 4), 1e-5, dtype=dtype)
    torch.testing.assert_close(model(x), theirs(x).detach())


def test_running_statistics_of_sequences_are_pytorchs() -> None:
    net = nt.Sequential(nt.BatchNorm1d(momentum=0.3), nt.Flatten(), nt.Linear(2))
    model = nt.compile(net, (3, 4), nt.MSELoss(), dtype=torch.float64)
    theirs = nn.Sequential(nn.BatchNorm1d(3, momentum=0.3), nn.Flatten(), nn.Linear(12, 2)).double()
    theirs.load_state_dict(model.state_dict())
    x, y = random(5, 3, 4), random(5, 2, seed=1)
    nt.TorchOptimizer(model, torch.optim.SGD, lr=0.0).step(x, y)
    theirs(x)
    for name, buffer in theirs.named_buffers():
        torch.testing.assert_close(model.state_dict()[name], buffer)
    torch.testing.assert_close(model(x), theirs.eval()(x).detach())


REFUSED: list[tuple[Callable[[], object], str]] = [
    (lambda: nt.BatchNorm2d(1e-3), "num_features is 0.001: give a positive integer"),
    (lambda: nt.BatchNorm2d(16, 1e-3), "BatchNorm2d(16, 0.001) has 2 positional arguments"),
    (lambda: nt.BatchNorm2d(track_running_stats=False), "no option 'track_running_stats'"),
    (lambda: nt.BatchNorm2d(momentum=2.0), "momentum is 2.0: give a number ≥ 0 and ≤ 1"),
    (lambda: nt.BatchNorm2d(affine=1), "affine is 1: give True or False"),
    (lambda: nt.GroupNorm(0), "num_groups is 0: give a positive integer"),
    (nt.GroupNorm, "GroupNorm() has 0 positional arguments: give GroupNorm(num_groups) or"),
    (lambda: nt.LayerNorm(64, 1e-5), "LayerNorm(64, 1e-05) has 2 positional arguments"),
    (lambda: nt.LayerNorm(4, 5), "LayerNorm(4, 5) has 2 positional arguments"),
    (lambda: nt.LayerNorm((4, 0)), "normalized_shape is 0: give a positive integer"),
    (lambda: nt.RMSNorm(eps=0.0), "eps is 0.0: give a number > 0"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_calls_that_mean_nothing_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(nt.NewtritonError, match=re.escape(message)):
        make()


MISFITS: list[tuple[Layer, tuple[int, ...], str]] = [
    (nt.BatchNorm2d(16), (3, 4, 4), "num_features is 16, and 3 arrive: give 3, or leave it out as"),
    (nt.BatchNorm2d(), (3, 4), "it needs a C×H×W image"),
    (nt.BatchNorm1d(), (3, 4, 4), "use BatchNorm2d for images"),
    (nt.InstanceNorm1d(), (3,), "it needs a C×L sequence"),
    (nt.GroupNorm(2), (3, 4), "3 channels do not divide into 2 groups"),
    (nt.GroupNorm(2, 8), (4, 4), "num_channels is 8, and 4 arrive"),
    (nt.LayerNorm(), (3, 4, 4), "over which axes of an image? say LayerNorm((3, 4, 4))"),
    (nt.LayerNorm(8), (3, 4), "normalized_shape is (8,), and (4,) arrive"),
    (nt.RMSNorm((2, 3, 4)), (3, 4), "normalized_shape is (2, 3, 4): it has too many axes"),
]


@pytest.mark.parametrize(
    ("layer", "shape", "message"), MISFITS, ids=[message for *_, message in MISFITS]
)
def test_shapes_that_do_not_fit_are_named(
    layer: Layer, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(nt.ShapeError, match=re.escape(f"{layer!r} at layer 0 got")) as caught:
        nt.compile(nt.Sequential(layer), shape, nt.MSELoss())
    assert message in str(caught.value)
