"""Layers in their places: misfits are named there, and users' layers build what they like."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

import newtriton as nt
from newtriton.compiler.graph.ir import Node
from newtriton.compiler.language.network import Scope


def stages() -> list[Any]:
    return [
        layer
        for width in (32, 64)
        for layer in (nt.Conv2d(width, 3, padding=1), nt.SiLU(), nt.MaxPool2d(2))
    ]


MISFITS: dict[str, tuple[nt.Sequential, str]] = {
    "no flatten": (
        nt.Sequential(*stages(), nt.Tanh(), nt.Linear(10)),
        "Linear(10) at layer 7 got a 64×2×2 image: add Flatten() before it",
    ),
    "flattened": (
        nt.Sequential(nt.Flatten(), nt.Conv2d(4, 3)),
        "Conv2d(4, 3) at layer 1 got 64 features: it needs a C×H×W image: move it before Flatten()",
    ),
    "pool of features": (
        nt.Sequential(nt.Flatten(), nt.MaxPool2d(2)),
        "MaxPool2d(2) at layer 1 got 64 features",
    ),
    "window": (
        nt.Sequential(nt.ReLU(), nt.Conv2d(4, 9)),
        "Conv2d(4, 9) at layer 1 got a 1×8×8 image: a 9×9 window",
    ),
    "groups": (
        nt.Sequential(nt.Conv2d(4, 3, groups=2)),
        "Conv2d(4, 3, groups=2) at layer 0 got a 1×8×8 image: "
        "1 input channels do not divide into 2 groups",
    ),
    "nested": (
        nt.Sequential(nt.ReLU(), nt.Residual(nt.Sequential(nt.ReLU(), nt.Linear(3)))),
        "Linear(3) at layer 1.body.1 got a 1×8×8 image: add Flatten() before it",
    ),
    "branches": (
        nt.Sequential(nt.Residual(nt.Conv2d(4, 3, padding=1))),
        "at layer 0 got a 1×8×8 image: its branches give a 1×8×8 image and a 4×8×8 image",
    ),
}


@pytest.mark.parametrize(("net", "message"), MISFITS.values(), ids=MISFITS)
def test_shapes_that_do_not_fit_are_named_at_their_layer(net: nt.Sequential, message: str) -> None:
    with pytest.raises(nt.ShapeError, match=re.escape(message)):
        nt.compile(net, (1, 8, 8), nt.CrossEntropyLoss())


def test_a_network_of_one_layer_is_named_too() -> None:
    message = "Linear(3) got a 1×8×8 image: add Flatten() before it"
    with pytest.raises(nt.ShapeError, match=re.escape(message)):
        nt.compile(nt.Linear(3), (1, 8, 8), nt.CrossEntropyLoss())


def test_a_layer_stands_at_one_place_only() -> None:
    layer = nt.Linear(3)
    net = nt.Sequential(layer, nt.Tanh(), nt.Residual(layer))
    with pytest.raises(nt.NewtritonError, match=r"Linear\(3\) stands at 0 and at 2.body"):
        nt.compile(net, (3,), nt.MSELoss())


def test_layers_of_torch_are_refused_with_their_place() -> None:
    with pytest.raises(nt.NewtritonError, match=r"layer 1 is Tanh\(\): use newtriton's own"):
        nt.compile(nt.Sequential(nt.Linear(3), nn.Tanh()), (3,), nt.MSELoss())  # type: ignore[arg-type]
    with pytest.raises(nt.NewtritonError, match="use newtriton's own layers"):
        nt.compile(nn.Sequential(nn.Linear(3, 3)), (3,), nt.MSELoss())  # type: ignore[arg-type]


def test_a_network_without_parameters_is_refused() -> None:
    with pytest.raises(nt.NewtritonError, match="no parameters"):
        nt.compile(nt.Sequential(nt.Flatten()), (3,), nt.MSELoss())


class Perceptron:
    """A user's layer that makes its sub-layers while it is traced, and keeps none of them."""

    def __init__(self, *widths: int) -> None:
        self.widths = widths

    def build(self, x: Node, scope: Scope) -> Node:
        for i, width in enumerate(self.widths):
            x = scope.build(f"l{i}", nt.Linear(width), x)
            x = scope.build(f"act{i}", nt.Tanh(), x)
        return x


def test_a_layer_may_make_its_sub_layers_while_it_is_traced() -> None:
    net = nt.Sequential(Perceptron(5, 5, 5), Perceptron(4), nt.Linear(3))
    model = nt.compile(net, (4,), nt.CrossEntropyLoss(), dtype=torch.float64)
    twin = nn.Sequential(
        *(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh()),
        *(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)),
    )
    weights = [name for name, _ in model.named_parameters() if name.endswith("weight")]
    assert weights == ["0.l0.weight", "0.l1.weight", "0.l2.weight", "1.l0.weight", "2.weight"]
    layers = [layer for layer in twin if isinstance(layer, nn.Linear)]
    model.load_state_dict(
        {
            name.replace("weight", part): getattr(layer, part).detach()
            for name, layer in zip(weights, layers, strict=True)
            for part in ("weight", "bias")
        }
    )
    x = torch.randn(6, 4)
    torch.testing.assert_close(model(x.double()), twin.double()(x.double()))


def test_a_layer_that_a_user_builds_twice_is_refused() -> None:
    class Twice:
        def build(self, x: Node, scope: Scope) -> Node:
            layer = nt.Linear(4)
            return scope.build("b", layer, scope.build("a", layer, x))

    with pytest.raises(nt.NewtritonError, match=r"Linear\(4\) stands at 0\.a and at 0\.b"):
        nt.compile(nt.Sequential(Twice()), (4,), nt.MSELoss())


class Scaled:
    """A user's layer with one parameter per feature."""

    def __init__(self, init: Any) -> None:
        self.init = init

    def build(self, x: Node, scope: Scope) -> Node:
        w = scope.parameter("w", x.shape[1:], self.init, (1, 1))
        return nt.ops.multiply(x, nt.ops.broadcast(w, x.shape))


@pytest.mark.parametrize("init", ["orthogonal", "Ones", "", None, 1.0])
def test_an_unknown_rule_for_first_values_is_refused_with_the_known_ones(init: Any) -> None:
    known = "'default', 'kaiming', 'xavier', 'sparse', 'ones', 'zeros'"
    message = f"init of parameter 1.w is {init!r}: one of {known}"
    with pytest.raises(nt.NewtritonError, match=re.escape(message)):
        nt.compile(nt.Sequential(nt.Linear(3), Scaled(init)), (4,), nt.MSELoss())


@pytest.mark.parametrize(("init", "value"), [("ones", 1.0), ("zeros", 0.0)])
def test_constant_first_values(init: str, value: float) -> None:
    model = nt.compile(Scaled(init), (3,), nt.MSELoss())
    assert model.state_dict()["w"].tolist() == [value] * 3
