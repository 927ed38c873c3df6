"""Layers that pad, against PyTorch's."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from torch import nn

import newtriton as nt
from tests.compiler.functions.oracle import random

from .oracle import same_layer

SEQUENCE, IMAGE = (2, 3, 5), (2, 3, 4, 5)
KINDS = ["Zero", "Reflection", "Replication", "Circular"]


@pytest.mark.parametrize("kind", KINDS)
def test_padding_by_the_values_own_elements(kind: str) -> None:
    for axes, shape, widths in ((1, SEQUENCE, (1, 2)), (2, IMAGE, (1, 2, 0, 3))):
        ours, theirs = (getattr(module, f"{kind}Pad{axes}d") for module in (nt, nn))
        same_layer(ours(2), theirs(2), random(*shape))
        same_layer(ours(widths), theirs(widths), random(*shape))


def test_padding_by_a_number() -> None:
    same_layer(nt.ConstantPad1d((2, 1), 1.5), nn.ConstantPad1d((2, 1), 1.5), random(*SEQUENCE))
    pads = (-1, 2, 1, 0)
    same_layer(nt.ConstantPad2d(pads, -2.0), nn.ConstantPad2d(pads, -2.0), random(*IMAGE))


REFUSED: list[tuple[Callable[[], object], str]] = [
    (lambda: nt.ZeroPad2d((1, 2)), "padding is (1, 2): give an integer or 4 of them"),
    (lambda: nt.ZeroPad1d(True), "padding is True: give an integer"),
    (lambda: nt.ConstantPad2d(1, "a"), "value is 'a': give a number"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_calls_that_mean_nothing_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(nt.NewtritonError, match=re.escape(message)):
        make()


def test_more_than_there_is_is_named() -> None:
    net = nt.Sequential(nt.ReflectionPad1d(5), nt.Flatten(), nt.Linear(2))
    with pytest.raises(nt.ShapeError, match=r"ReflectionPad1d\(5\) at layer 0 got 2×5 features"):
        nt.compile(net, (2, 5), nt.MSELoss())
