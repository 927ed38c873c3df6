"""Activations against PyTorch's modules, with their parameters in PyTorch's order."""

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

# PyTorch's own derivatives of Hardsigmoid and CELU are those of formulas in float32.
ARGUMENTS: dict[str, list[tuple]] = {
    "ReLU": [()],
    "LeakyReLU": [(), (0.2,)],
    "ReLU6": [()],
    "Threshold": [(0.1, 2.0)],
    "ELU": [(), (0.5,)],
    "SELU": [()],
    "CELU": [(), (0.5,)],
    "Sigmoid": [()],
    "LogSigmoid": [()],
    "Hardsigmoid": [()],
    "Tanh": [()],
    "Hardtanh": [(), (-0.5, 2.0)],
    "Tanhshrink": [()],
    "Hardshrink": [(), (0.2,)],
    "Softshrink": [(), (0.2,)],
    "Softsign": [()],
    "Softplus": [(), (2.0, 3.0)],
    "SiLU": [()],
    "Hardswish": [()],
    "Mish": [()],
    "GELU": [(), ("tanh",)],
}
CASES = [(name, given) for name, several in ARGUMENTS.items() for given in several]
IDS = [f"{name}{given}" for name, given in CASES]


@pytest.mark.parametrize(("name", "given"), CASES, ids=IDS)
def test_activations_are_pytorchs(name: str, given: tuple) -> None:
    layer, module = getattr(nt, name)(*given), getattr(nn, name)(*given)
    exact = name != "Hardsigmoid"
    same_layer(layer, module, random(3, 5, scale=3.0), random(2, 3, 4, 5), derivatives=exact)
    large = torch.tensor([[-1e4, -200.0, 200.0, 1e4]], dtype=torch.float64)
    same_layer(layer, module, large, derivatives=False)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 4), (2, 3, 4, 5)])
def test_slopes_that_are_trained(shape: tuple[int, ...], count: int) -> None:
    same_layer(nt.PReLU(count), nn.PReLU(count), random(*shape))


def test_slopes_start_where_they_are_told() -> None:
    net = nt.Sequential(nt.Linear(3), nt.PReLU(3, 0.1))
    assert nt.compile(net, (2,), nt.MSELoss()).state_dict()["1.weight"].tolist() == pytest.approx(
        [0.1] * 3
    )


@pytest.mark.parametrize("dim", [-1, 1])
def test_gated_units(dim: int) -> None:
    same_layer(nt.GLU(dim), nn.GLU(dim), random(3, 4), random(2, 4, 6), random(2, 4, 3, 2))


REFUSED: list[tuple[Callable[[], object], str]] = [
    (lambda: nt.LeakyReLU(True), "negative_slope is True: give a number"),
    (lambda: nt.CELU(0.0), "alpha is 0.0: give a number > 0"),
    (lambda: nt.Hardtanh(1.0, 1.0), "max_val is 1.0: give a number > 1"),
    (lambda: nt.Softshrink(-1.0), "lambd is -1.0: give a number ≥ 0"),
    (lambda: nt.PReLU(0), "num_parameters is 0"),
    (lambda: nt.GELU("erf"), "approximate is 'erf'"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_calls_that_mean_nothing_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(nt.NewtritonError, match=re.escape(message)):
        make()


MISFITS: list[tuple[Layer, tuple[int, ...], str]] = [
    (nt.PReLU(4), (3,), "num_parameters is 4, and 3 channels arrive: give 3, or 1 for all"),
    (nt.GLU(), (3,), "dim -1 has 3 elements: give an even number"),
]


@pytest.mark.parametrize(("layer", "shape", "message"), MISFITS)
def test_shapes_that_do_not_fit_are_named(
    layer: Layer, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(nt.ShapeError, match=re.escape(message)):
        nt.compile(nt.Sequential(layer), shape, nt.MSELoss())
