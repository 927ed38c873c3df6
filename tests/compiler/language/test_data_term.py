"""Outputs and labels of any shape: the mean loss, classes, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import newtriton as nt
from newtriton.compiler.graph import ops
from newtriton.compiler.graph.ir import N, Node
from newtriton.compiler.language.network import Scope
from tests import networks
from tests.positions import F64, K, T, compiled, torch_loss
from tests.tolerances import assert_close


@pytest.mark.parametrize("loss", [nt.MSELoss(), nt.BCEWithLogitsLoss(pos_weight=2.0)], ids=repr)
@pytest.mark.parametrize("sequences", [False, True])
def test_one_output_goes_towards_its_labels(loss: nt.Loss, sequences: bool):
    model, module, x = compiled(loss, sequences, outputs=1)
    shape = (6, T) if sequences else (6,)
    y = torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(1))
    expected = torch_loss(loss, module(x), y.double().unsqueeze(-1))
    assert_close(model.loss(x, y), expected.detach())
    threshold = 0.5 if isinstance(loss, nt.MSELoss) else 0.0
    classes = model.classes(x)
    assert classes.shape == y.shape
    assert torch.equal(classes, (module(x)[..., 0] > threshold).long())
    _, accuracy = nt.evaluate(model, [(x, y)])
    assert accuracy == pytest.approx(float((classes == y).double().mean()))


def test_one_output_decides_between_the_labels_that_there_are():
    loss = nt.Criterion(lambda z, y: nt.scalar.softplus(-z * y), values=(-1, 1), convex=True)
    model, module, x = compiled(loss, sequences=False, outputs=1)
    y = torch.where(module(x)[:, 0] > 0, 1, -1)
    assert torch.equal(model.classes(x), y)
    assert nt.evaluate(model, [(x, y)])[1] == 1.0


AS_NUMBERS = r"of shape \(6, 3\): use y.to\(torch.float64\) for numbers"
TARGETS = [
    (torch.zeros(6, K, dtype=torch.int64), f"torch.int64 {AS_NUMBERS}"),
    (torch.zeros(6, K, dtype=torch.bool), f"torch.bool {AS_NUMBERS}"),
    (torch.zeros(6, 2), r"takes labels of torch.float64"),
]


@pytest.mark.parametrize(("y", "message"), TARGETS, ids=[m for _, m in TARGETS])
def test_targets_that_are_no_floats_are_named(y: Tensor, message: str):
    model, _, x = compiled(nt.MSELoss(), sequences=False)
    with pytest.raises(nt.NewtritonError, match=message):
        model.linearize(x, y)


class Squeezed:
    """Linear(1) without its axis: N numbers."""

    def build(self, x: Node, scope: Scope) -> Node:
        return ops.reshape(scope.build("body", nt.Linear(1), x), (N,))


def test_outputs_may_be_one_number_a_sample():
    x, y = torch.randn(6, 4, dtype=F64), torch.randn(6, dtype=F64)
    model = nt.compile(Squeezed(), (4,), nt.MSELoss(), dtype=F64)
    state = model.state_dict()
    z = (x @ state["body.weight"].mT + state["body.bias"])[:, 0]
    lin = model.linearize(x, y)
    assert_close(lin.outputs, z)
    assert_close(lin.loss, functional.mse_loss(z, y))
    assert_close(model.loss(x, torch.ones(6, dtype=torch.int64)), (z - 1).square().mean())
    assert torch.equal(model.classes(x), (z > 0.5).long())
    assert torch.isfinite(lin.kronecker_factors("kflr")["body"].G).all()  # type: ignore[union-attr]


@pytest.mark.parametrize("weight", [None, [0.5, 2.0, 1.0]])
def test_images_are_classified_at_each_pixel(weight: list[float] | None):
    """As PyTorch has it, with the classes on the axis of channels."""
    loss = nt.CrossEntropyLoss(weight, ignore_index=1)
    model = nt.compile(nt.Conv2d(3, 3, padding=1), (2, 4, 5), loss, dtype=F64)
    conv = nn.Conv2d(2, 3, 3, padding=1).double()
    model.load_state_dict(conv.state_dict())
    x, y = torch.randn(4, 2, 4, 5, dtype=F64), torch.randint(0, 3, (4, 4, 5))
    given = None if weight is None else torch.tensor(weight, dtype=F64)
    expected = functional.cross_entropy(conv(x), y, given, ignore_index=1)
    lin = model.linearize(x, y)
    assert_close(lin.outputs, conv(x).detach())
    assert_close(lin.loss, expected.detach())
    (gradient,) = torch.autograd.grad(expected, [conv.bias])  # type: ignore[list-item]
    assert_close(model.unflatten(lin.gradient)["bias"], gradient)
    assert torch.equal(model.classes(x), conv(x).argmax(1))
    _, accuracy = nt.evaluate(model, [(x, y)])
    counts = y != 1
    right = (conv(x).argmax(1) == y)[counts].double().mean()
    assert accuracy == pytest.approx(float(right))
    assert lin.hides(0.0)


def test_errors_of_images_against_images():
    model = nt.compile(nt.Conv2d(3, 3, padding=1), (2, 4, 5), nt.MSELoss(), dtype=F64)
    conv = nn.Conv2d(2, 3, 3, padding=1).double()
    model.load_state_dict(conv.state_dict())
    x, y = torch.randn(4, 2, 4, 5, dtype=F64), torch.randn(4, 3, 4, 5, dtype=F64)
    expected = (conv(x) - y).square().sum() / 4
    (gradient,) = torch.autograd.grad(expected, [conv.weight])
    lin = model.linearize(x, y)
    assert_close(lin.loss, expected.detach())
    assert_close(model.unflatten(lin.gradient)["weight"], gradient)
    hot = torch.randint(0, 3, (4, 4, 5))
    one_hot = functional.one_hot(hot, 3).permute(0, 3, 1, 2).double()
    assert_close(model.loss(x, hot), model.loss(x, one_hot))


def test_a_network_that_ends_in_an_image_is_told_to_flatten_it():
    model = nt.compile(nt.Conv2d(3, 3, padding=1), (2, 4, 5), nt.CrossEntropyLoss(), dtype=F64)
    x = torch.randn(4, 2, 4, 5, dtype=F64)
    with pytest.raises(nt.NewtritonError, match=r"of shape \(4, 4, 5\), got .*Flatten\(\)"):
        model.linearize(x, torch.zeros(4, dtype=torch.int64))


def test_classes_of_sequences_lie_last():
    model, _, x = compiled(nt.CrossEntropyLoss(), sequences=True, outputs=2)
    with pytest.raises(nt.NewtritonError, match=r"classes lie last.*z.movedim\(1, -1\)"):
        model.linearize(x, torch.zeros(6, 2, dtype=torch.int64))


ROWS = [nt.SigmoidMarginLoss(root="clip"), nt.MixtureLoss("fisher"), nt.MixtureLoss("clip")]


@pytest.mark.parametrize("loss", [*ROWS, networks.logistic, networks.welsch], ids=repr)
def test_every_loss_takes_sequences(loss: nt.Loss):
    """Losses on classes as on the flattened rows; sums over outputs as on flattened samples."""
    model, module, x = compiled(loss, sequences=True)
    rows = (6, T * K) if loss.separable else (6 * T, K)
    y = networks.labels(loss, *rows, F64)
    z = module(x)
    expected = networks.torch_loss(loss, z.reshape(rows), y)
    lin = model.linearize(x, y.reshape(z.shape if loss.separable else (6, T)))
    assert_close(lin.loss, expected.detach())
    gradients = torch.autograd.grad(expected, [*module.parameters()])
    names = [name for name, _ in module.named_parameters()]
    assert_close(lin.gradient, model.flatten(dict(zip(names, gradients, strict=True))))
    v = torch.linspace(-1, 1, model.params.numel(), dtype=F64)
    assert_close(lin.quadratic_forms([v], "ggn")[0, 0], v @ lin.ggnvp(v))
    b = networks.output_curvature(loss, lin.outputs.reshape(rows), y).mean(0)
    if not loss.separable:
        assert_close(lin.kronecker_factors("kflr", layers=["5"])["5"].G, b)  # type: ignore[union-attr]


class ChannelsLast(nn.Module):
    """A convolution whose classes lie on the last axis."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).permute(0, 2, 3, 1)


def test_images_of_modules_come_in_pytorchs_order():
    options = {"dtype": F64, "backend": "aten", "device": "cpu"}
    module, x = ChannelsLast().double(), torch.randn(3, 2, 5, 4, dtype=F64)
    model = nt.from_torch(module, x, nt.CrossEntropyLoss(), **options)
    y = torch.randint(0, 3, (3, 5, 4))
    y[0, 0] = -100
    expected = functional.cross_entropy(module(x).reshape(-1, 3), y.reshape(-1)).detach()
    assert_close(model.loss(x, y), expected)
    conv, targets = module.conv, torch.randn(3, 3, 5, 4, dtype=F64)
    model = nt.from_torch(conv, x, nt.MSELoss(), **options)
    assert_close(model(x), conv(x).detach())
    expected = (conv(x) - targets).square().sum().detach() / 3
    assert_close(model.loss(x, targets), expected)
    model = nt.from_torch(conv, x, nt.CrossEntropyLoss(), **options)
    with pytest.raises(nt.NewtritonError, match="classes lie last"):
        model.loss(x, y)
