"""Layers print as the call that made them, whatever their options."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest

import newtriton as nt
from newtriton.compiler.language.described import Described

PRINTED = [
    "Conv2d(32, 3)",
    "Conv2d(32, 3, padding=1, bias=False)",
    "Conv2d(4, (3, 2), stride=2, padding=(1, 0), dilation=(1, 2), groups=2, init='kaiming')",
    "Conv2d(8, 5, padding='same')",
    "Conv2d(3, 8, 5, padding_mode='circular')",
    "Conv1d(8, 5, dilation=2)",
    "ConvTranspose2d(3, 8, (2, 4), stride=2, output_padding=(0, 1))",
    "Linear(10)",
    "Linear(20, 10)",
    "Embedding(1000, 64, padding_idx=0)",
    "SelfAttention(64, 4, dropout=0.1, causal=True)",
    "Linear(10, bias=False, init='xavier')",
    "MaxPool2d(2)",
    "MaxPool2d(3, stride=2, padding=1, dilation=2)",
    "AvgPool2d((2, 3), stride=1, count_include_pad=False)",
    "AvgPool2d(3, ceil_mode=True, divisor_override=4)",
    "AdaptiveAvgPool2d((None, 2))",
    "BatchNorm2d()",
    "BatchNorm1d(16)",
    "LayerNorm((16, 8, 8), bias=False)",
    "RMSNorm()",
    "GroupNorm(4, 16, affine=False)",
    "InstanceNorm2d(affine=True)",
    "ReflectionPad2d((1, 1, 0, 2))",
    "ConstantPad1d(1, 0.5)",
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
    "Softplus(threshold=10.0)",
    "Hardtanh(max_val=2.0)",
    "Threshold(0.5, 0.0)",
    "PReLU(num_parameters=3)",
    "GLU(dim=1)",
    "Softmax(-1)",
    "Flatten()",
    "Flatten(start_dim=2)",
    "Unflatten(1, (2, -1))",
    "Permute((0, 2, 1))",
    "Upsample(scale_factor=2, mode='bilinear', align_corners=True)",
    "Concat(Identity(), Linear(3), dim=-1)",
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


CONSTRUCTORS = [
    value
    for name in sorted(dir(nt))
    if isinstance(value := getattr(nt, name), type)
    and issubclass(value, Described)
    and value not in (nt.Loss, nt.Criterion)
]


@pytest.mark.parametrize("kind", CONSTRUCTORS, ids=lambda kind: kind.__name__)
def test_an_unknown_option_names_the_known_ones(kind: type) -> None:
    with pytest.raises(nt.NewtritonError, match=r"\(\) has no option 'dropuot'") as raised:
        kind(dropuot=0.5)
    for name, option in inspect.signature(kind).parameters.items():
        packed = option.kind in (option.VAR_POSITIONAL, option.VAR_KEYWORD)
        assert packed or name in str(raised.value).partition("arguments are")[2]


def test_a_size_is_named_among_the_known_ones() -> None:
    with pytest.raises(
        nt.NewtritonError, match=r"in_features, out_features, bias, init; did you mean 'bias'\?$"
    ):
        nt.Linear(3, biass=False)  # type: ignore[arg-type]


@pytest.mark.parametrize("call", [lambda: nt.ReLU(True), lambda: nt.Permute(0, 2, 1)])  # type: ignore[call-arg]
def test_too_many_arguments_are_refused(call: Callable[[], object]) -> None:
    with pytest.raises(nt.NewtritonError, match="has too many positional arguments: its arguments"):
        call()


def test_signatures_are_those_of_the_constructors() -> None:
    assert list(inspect.signature(nt.Dropout).parameters) == ["p"]
    assert not inspect.signature(nt.ReLU).parameters
    assert list(inspect.signature(nt.PolyakAverage).parameters) == ["decay"]
