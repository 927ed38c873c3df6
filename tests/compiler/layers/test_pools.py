"""Pools against PyTorch's, of sequences and images, and what their options refuse."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

import newtriton as nt
from newtriton.compiler.language.network import Layer
from tests.compiler.functions.oracle import random

from .oracle import same_layer

SEQUENCE, IMAGE = (2, 3, 9), (2, 3, 7, 8)
LAYERS: dict[str, tuple[Layer, nn.Module, tuple[int, ...]]] = {
    "MaxPool1d": (nt.MaxPool1d(3, 2, 1), nn.MaxPool1d(3, 2, 1), SEQUENCE),
    "MaxPool1d up": (
        nt.MaxPool1d(2, ceil_mode=True), nn.MaxPool1d(2, ceil_mode=True), SEQUENCE
    ),
    "MaxPool2d": (nt.MaxPool2d((3, 2), 2, (1, 0)), nn.MaxPool2d((3, 2), 2, (1, 0)), IMAGE),
    "MaxPool2d up": (
        nt.MaxPool2d(3, 2, ceil_mode=True, dilation=2),
        nn.MaxPool2d(3, 2, ceil_mode=True, dilation=2),
        IMAGE,
    ),
    "AvgPool1d": (nt.AvgPool1d(3, 2, 1), nn.AvgPool1d(3, 2, 1), SEQUENCE),
    "AvgPool1d up": (
        nt.AvgPool1d(2, padding=1, ceil_mode=True, count_include_pad=False),
        nn.AvgPool1d(2, padding=1, ceil_mode=True, count_include_pad=False),
        SEQUENCE,
    ),
    "AvgPool2d": (nt.AvgPool2d(2), nn.AvgPool2d(2), IMAGE),
    "AvgPool2d up": (
        nt.AvgPool2d(3, 2, 1, ceil_mode=True), nn.AvgPool2d(3, 2, 1, ceil_mode=True), IMAGE
    ),
    "AvgPool2d divisor": (
        nt.AvgPool2d(3, 2, ceil_mode=True, divisor_override=2),
        nn.AvgPool2d(3, 2, ceil_mode=True, divisor_override=2),
        IMAGE,
    ),
    "AdaptiveAvgPool1d": (nt.AdaptiveAvgPool1d(4), nn.AdaptiveAvgPool1d(4), SEQUENCE),
    "AdaptiveAvgPool2d": (nt.AdaptiveAvgPool2d((3, 4)), nn.AdaptiveAvgPool2d((3, 4)), IMAGE),
    "AdaptiveAvgPool2d whole": (nt.AdaptiveAvgPool2d(1), nn.AdaptiveAvgPool2d(1), IMAGE),
    "AdaptiveAvgPool2d half": (
        nt.AdaptiveAvgPool2d((None, 2)), nn.AdaptiveAvgPool2d((None, 2)), IMAGE
    ),
    "AdaptiveMaxPool1d": (nt.AdaptiveMaxPool1d(4), nn.AdaptiveMaxPool1d(4), SEQUENCE),
    "AdaptiveMaxPool2d": (nt.AdaptiveMaxPool2d((3, 2)), nn.AdaptiveMaxPool2d((3, 2)), IMAGE),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_pytorchs(name: str) -> None:
    layer, module, shape = LAYERS[name]
    same_layer(layer, module, random(*shape), random(*shape).round())


REFUSED: list[tuple[Callable[[], object], str]] = [
    (
        lambda: nt.AvgPool2d(3, 2, 1, False),
        "AvgPool2d(…, False) gives options by position: give them by name, as ceil_mode=True",
    ),
    (lambda: nt.MaxPool2d(3, 2, 1, 2), "MaxPool2d(…, 2) gives options by position"),
    (lambda: nt.MaxPool2d(3, ceil_mode=1), "ceil_mode is 1: give True or False"),
    (lambda: nt.AvgPool2d(3, count_include_pad=0), "count_include_pad is 0: give True or"),
    (lambda: nt.AvgPool2d(3, divisor_override=0), "divisor_override is 0"),
    (lambda: nt.MaxPool1d((2, 2)), "kernel_size is (2, 2): give an integer ≥ 1"),
    (lambda: nt.AdaptiveAvgPool2d(0), "output_size is (0, 0)"),
    (lambda: nt.AdaptiveAvgPool2d((1, 2, 3)), "output_size is (1, 2, 3)"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_calls_that_mean_nothing_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(nt.NewtritonError, match=re.escape(message)):
        make()


@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("make", [nt.MaxPool2d, nt.AvgPool2d])
def test_more_padding_than_half_a_window_is_named(make: Any, ceil: bool) -> None:
    net = nt.Sequential(make(2, padding=2, ceil_mode=ceil), nt.Flatten(), nt.Linear(2))
    with pytest.raises(nt.ShapeError, match=r"at layer 0 got a 1×5×5 image: .*more than half of"):
        nt.compile(net, (1, 5, 5), nt.MSELoss())


def test_what_is_no_image_is_named() -> None:
    with pytest.raises(nt.ShapeError, match=r"MaxPool1d\(2\) at layer 0 got a 1×8×8 image"):
        nt.compile(
            nt.Sequential(nt.MaxPool1d(2), nt.Flatten(), nt.Linear(2)), (1, 8, 8), nt.MSELoss()
        )
