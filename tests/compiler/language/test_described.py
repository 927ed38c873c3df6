"""Layers print as the call that made them, whatever their options."""

from __future__ import annotations

import pytest

import newtriton as nt
from newtriton.compiler.language.described import Described

PRINTED = [
    "Conv2d(32, 3)",
    "Conv2d(32, 3, padding=1, bias=False)",
    "Conv2d(4, (3, 2), stride=2, padding=(1, 0), dilation=(1, 2), groups=2, init='kaiming')",
    "Conv2d(8, 5, padding='same')",
    "Linear(10)",
    "Linear(10, bias=False, init='xavier')",
    "MaxPool2d(2)",
    "MaxPool2d(3, stride=2, padding=1, dilation=2)",
    "AvgPool2d((2, 3), stride=1, count_include_pad=False)",
    "BatchNorm2d()",
    "BatchNorm2d(eps=0.001, momentum=None, affine=False)",
    "ReLU()",
    "LeakyReLU()",
    "LeakyReLU(negative_slope=0.2)",
    "Sigmoid()",
    "Tanh()",
    "SiLU()",
    "Softplus(beta=2.0)",
    "GELU()",
    "GELU(approximate='tanh')",
    "Flatten()",
    "Sequential()",
    "Sequential(Linear(5), Tanh(), Linear(3))",
    "Residual(Conv2d(8, 3, padding=1))",
    "Residual(Sequential(Tanh()), shortcut=Conv2d(8, 1, bias=False))",
    "Add(Linear(3), Sequential(Linear(5), Linear(3)))",
    "CrossEntropyLoss()",
    "SigmoidMarginLoss(delta=3.0, root='clip')",
    "MixtureLoss(root='fisher')",
]


@pytest.mark.parametrize("text", PRINTED)
def test_a_layer_prints_as_what_could_be_typed_back(text: str) -> None:
    layer = eval(text, vars(nt).copy())
    assert isinstance(layer, Described)
    assert repr(layer) == text


def test_a_function_is_not_printed() -> None:
    loss = nt.Criterion(lambda z, y: (z - y) * (z - y), convex=True)
    assert repr(loss) == "Criterion(convex=True)"


def test_options_that_are_kept_elsewhere_are_not_printed() -> None:
    class Margin(nt.CrossEntropyLoss):
        def __init__(self, width: float) -> None:
            self.w = width

    assert repr(Margin(2.0)) == "Margin()"


def test_an_error_names_the_layer_with_its_options() -> None:
    net = nt.Sequential(nt.ReLU(), nt.Conv2d(4, 9, padding=(0, 1)))
    with pytest.raises(nt.ShapeError, match=r"Conv2d\(4, 9, padding=\(0, 1\)\) at layer 1 got"):
        nt.compile(net, (1, 6, 6), nt.CrossEntropyLoss())
