"""Convolutions and their transposes against PyTorch's; what their options refuse."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from torch import nn

import newtriton as nt
from newtriton.compiler.language.network import Layer
from tests.compiler.functions.oracle import random

from .oracle import same_layer

SEQUENCE, IMAGE = (3, 4, 9), (2, 4, 7, 6)
LAYERS: dict[str, tuple[Layer, nn.Module, tuple[int, ...]]] = {
    "Conv1d": (nt.Conv1d(3, 2), nn.Conv1d(4, 3, 2), SEQUENCE),
    "Conv1d stated": (nt.Conv1d(4, 6, 3), nn.Conv1d(4, 6, 3), SEQUENCE),
    "Conv1d options": (
        nt.Conv1d(6, 3, stride=2, padding=2, dilation=2, groups=2, bias=False),
        nn.Conv1d(4, 6, 3, 2, 2, 2, 2, False),
        SEQUENCE,
    ),
    "Conv1d same": (
        nt.Conv1d(3, 4, padding="same", padding_mode="circular"),
        nn.Conv1d(4, 3, 4, padding="same", padding_mode="circular"),
        SEQUENCE,
    ),
    "Conv2d": (nt.Conv2d(3, (3, 2)), nn.Conv2d(4, 3, (3, 2)), IMAGE),
    "Conv2d stated": (nt.Conv2d(4, 3, kernel_size=2), nn.Conv2d(4, 3, 2), IMAGE),
    "Conv2d reflect": (
        nt.Conv2d(3, 3, padding=(2, 1), stride=2, padding_mode="reflect"),
        nn.Conv2d(4, 3, 3, padding=(2, 1), stride=2, padding_mode="reflect"),
        IMAGE,
    ),
    "Conv2d replicate": (
        nt.Conv2d(4, 3, padding=1, groups=4, padding_mode="replicate"),
        nn.Conv2d(4, 4, 3, padding=1, groups=4, padding_mode="replicate"),
        IMAGE,
    ),
    "Conv2d even": (
        nt.Conv2d(3, (2, 4), padding="same"), nn.Conv2d(4, 3, (2, 4), padding="same"), IMAGE
    ),
    "Conv2d valid": (nt.Conv2d(3, 3, padding="valid"), nn.Conv2d(4, 3, 3, padding="valid"), IMAGE),
    "ConvTranspose1d": (
        nt.ConvTranspose1d(3, 3, stride=2, output_padding=1),
        nn.ConvTranspose1d(4, 3, 3, stride=2, output_padding=1),
        SEQUENCE,
    ),
    "ConvTranspose2d": (
        nt.ConvTranspose2d(3, 4, stride=2, padding=1),
        nn.ConvTranspose2d(4, 3, 4, stride=2, padding=1),
        IMAGE,
    ),
    "ConvTranspose2d options": (
        nt.ConvTranspose2d(
            4, 6, (3, 2), stride=(2, 1), padding=(0, 1), output_padding=(1, 0), groups=2,
            bias=False, dilation=(1, 2),
        ),
        nn.ConvTranspose2d(
            4, 6, (3, 2), stride=(2, 1), padding=(0, 1), output_padding=(1, 0), groups=2,
            bias=False, dilation=(1, 2),
        ),
        IMAGE,
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_pytorchs(name: str) -> None:
    layer, module, shape = LAYERS[name]
    same_layer(layer, module, random(*shape))


@pytest.mark.parametrize("make", [nt.Conv2d, nt.MaxPool2d, nt.AvgPool2d])
def test_windows_take_pairs_and_integers(make: Any) -> None:
    sizes = [1] if make is nt.Conv2d else []

    def shape(kernel: object, stride: object) -> int:
        net: Layer = nt.Sequential(make(*sizes, kernel, stride=stride), nt.Flatten(), nt.Linear(2))
        return nt.compile(net, (1, 7, 7), nt.MSELoss()).params.numel()

    assert shape(3, 2) == shape((3, 3), (2, 2)) == shape(np.int64(3), np.array([2, 2]).tolist())
    with pytest.raises(nt.NewtritonError, match="kernel_size is None: give an integer ≥ 1 or a"):
        make(*sizes, None)


REFUSED: list[tuple[Callable[[], object], str]] = [
    (lambda: nt.Conv2d(3, 16, 3, 1, 1), "Conv2d(3, 16, 3, 1, 1) has 5 positional arguments: give"),
    (lambda: nt.Conv2d(3), "Conv2d(3) has 1 positional arguments"),
    (lambda: nt.Conv2d(3, 3, dtype=None), "Conv2d() has no option 'dtype'"),
    (lambda: nt.Conv2d(3, 16, True), "kernel_size is True: give an integer ≥ 1 or a pair of them"),
    (lambda: nt.Conv2d(True, 3), "out_channels is True: give a positive integer"),
    (lambda: nt.Conv2d(3, (3, 3, 3)), "kernel_size is (3, 3, 3): give an integer"),
    (lambda: nt.Conv1d(3, (3, 3)), "kernel_size is (3, 3): give an integer ≥ 1"),
    (lambda: nt.Conv2d(3, 3, bias=1), "bias is 1: give True or False"),
    (lambda: nt.Conv2d(3, 3, padding=-1), "padding is -1: give an integer ≥ 0"),
    (lambda: nt.Conv2d(3, 3, padding="full"), "padding is 'full': give integers, 'same' or"),
    (lambda: nt.Conv2d(3, 3, padding="same", stride=2), "'same' needs stride 1"),
    (lambda: nt.Conv2d(3, 3, padding_mode="edge"), "padding_mode is 'edge': one of 'zeros'"),
    (lambda: nt.ConvTranspose2d(3, 3, output_padding=1), "output_padding is 1: give less than"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_calls_that_mean_nothing_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(nt.NewtritonError, match=re.escape(message)):
        make()


def test_another_number_of_channels_is_named() -> None:
    net = nt.Sequential(nt.Conv2d(32, 3, 1), nt.Flatten())
    message = "Conv2d(32, 3, 1) at layer 0 got a 3×8×8 image: in_channels is 32, and 3 arrive"
    with pytest.raises(nt.ShapeError, match=re.escape(message)):
        nt.compile(net, (3, 8, 8), nt.MSELoss())


def test_sequences_and_images_are_told_apart() -> None:
    with pytest.raises(nt.ShapeError, match="it needs a C×L sequence"):
        nt.compile(nt.Conv1d(3, 3), (3, 8, 8), nt.MSELoss())
    with pytest.raises(nt.ShapeError, match="it needs a C×H×W image"):
        nt.compile(nt.Conv2d(3, 3), (3, 8), nt.MSELoss())
