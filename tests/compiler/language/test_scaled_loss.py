"""A loss times c: autograd's derivatives, and c times all that stands for curvature."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import newtriton as nt
from newtriton.compiler.curvature.factors import KINDS
from newtriton.compiler.graph.ir import Node
from newtriton.compiler.language.loss import GAUSS_NEWTON
from tests.networks import Autograd, labels, logistic, output_curvature, welsch
from tests.tolerances import assert_close

F64 = torch.float64
LOSSES = (
    *(nt.CrossEntropyLoss(), nt.MSELoss(), nt.BCEWithLogitsLoss(), logistic, welsch),
    *(nt.MixtureLoss("fisher"), nt.MixtureLoss("clip"), nt.SigmoidMarginLoss(root="clip")),
    *(nt.MixtureLoss(), nt.SigmoidMarginLoss()),
)
SCALES = (1e5, 1e-5)


def compiled(loss: nt.Loss, dtype: torch.dtype = F64, **options: Any):
    """Returns a perceptron with three outputs, the same in PyTorch, and a batch."""
    torch.manual_seed(0)
    net = nt.Sequential(nt.Linear(5), nt.Tanh(), nt.Linear(3))
    module = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).to(dtype)
    options = {"backend": "aten", "device": "cpu", **options}
    model = nt.compile(net, (4,), loss, dtype=dtype, **options)
    model.load_state_dict(module.state_dict())
    return model, module, torch.randn(6, 4, dtype=dtype), labels(loss, 6, 3, dtype)


def curvatures(model: nt.Model, x: Tensor, y: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yields all that stands for curvature, or is linear in the loss, by name."""
    lin = model.linearize(x, y)
    u, v = torch.linspace(-1, 1, 2 * model.params.numel(), dtype=x.dtype).reshape(2, -1).sin()
    yield "losses", lin.loss
    yield "gradient", lin.gradient
    yield "hvp", lin.hvp(v)
    yield "forms", lin.quadratic_forms([u, v])
    programs = model.programs[True]
    if programs.offers("ggn"):
        yield "ggnvp", lin.ggnvp(v)
        yield "stored ggnvp", lin.ggnvp(v, "stored-jacobian")
        yield "ggn forms", lin.quadratic_forms([u, v], "ggn")
    for kind in filter(programs.offers, KINDS):
        found = lin.kronecker_factors(kind, 2, torch.Generator().manual_seed(0))
        for layer, pair in found.items():
            yield f"{kind} {layer}", pair.G  # type: ignore[union-attr]


@pytest.mark.parametrize("c", SCALES)
@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_everything_is_c_times_what_it_is_of_the_loss_itself(loss: nt.Loss, c: float):
    model, _, x, y = compiled(loss)
    scaled = compiled(nt.Scaled(loss, c))[0]
    of_scaled = dict(curvatures(scaled, x, y))
    for name, value in curvatures(model, x, y):
        assert_close(of_scaled.pop(name), c * value, name)
    assert not of_scaled
    assert torch.equal(scaled.classes(x), model.classes(x))


@pytest.mark.parametrize("c", SCALES)
@pytest.mark.parametrize("loss", LOSSES[:-2], ids=repr)
def test_derivatives_are_autograds(loss: nt.Loss, c: float):
    criterion = nt.Scaled(loss, c)
    model, module, x, y = compiled(criterion, weight_decay=0.1)
    lin, oracle = model.linearize(x, y), Autograd(model, module, criterion, x, y)
    v = torch.linspace(-1, 1, model.params.numel(), dtype=F64).sin()
    assert_close(lin.loss, oracle.loss.detach(), "loss")
    assert_close(lin.gradient, oracle.gradient, "gradient")
    assert_close(lin.hvp(v), oracle.hvp(v), "hvp")
    assert_close(lin.ggnvp(v), oracle.ggnvp(v), "ggnvp")
    g = lin.kronecker_factors("kflr")["2"].G  # type: ignore[union-attr]
    assert_close(g, output_curvature(criterion, lin.outputs, y).mean(0), "root")


@pytest.mark.parametrize("c", SCALES)
@pytest.mark.parametrize("loss", LOSSES[:2], ids=repr)
def test_drawn_adjoints_have_the_covariance_b(loss: nt.Loss, c: float):
    model, _, x, y = compiled(nt.Scaled(loss, c))
    lin = model.linearize(x, y)
    draws = lin.kronecker_factors("kfac", 20_000, torch.Generator().manual_seed(0))
    exact = lin.kronecker_factors("kflr")
    for layer, pair in draws.items():
        expected = exact[layer].G  # type: ignore[union-attr]
        torch.testing.assert_close(
            pair.G / c,  # type: ignore[union-attr]
            expected / c,
            rtol=0.0,
            atol=0.03 * float(expected.abs().max()) / c,
        )


def test_diagonals_of_drawn_labels_are_multiplied_too():
    net = nt.Sequential(nt.Conv2d(3, 3), nt.BatchNorm2d(), nt.Tanh(), nt.Flatten(), nt.Linear(2))
    x, y = torch.randn(5, 1, 4, 4, dtype=F64), torch.arange(5) % 2
    for kind in ("kfac", "empirical", "kflr"):
        found = []
        for loss in (nt.CrossEntropyLoss(), nt.Scaled(nt.CrossEntropyLoss(), 1e5)):
            lin = nt.compile(net, (1, 4, 4), loss, dtype=F64).linearize(x, y)
            found.append(lin.kronecker_factors(kind, 1, torch.Generator().manual_seed(0))["1"])
        for name, tensor in found[0].tensors.items():
            assert_close(found[1].tensors[name], 1e5 * tensor, f"{kind} {name}")


@pytest.mark.parametrize("loss", [LOSSES[0], LOSSES[5]], ids=repr)
def test_factors_multiply_where_one_is_in_another(loss: nt.Loss):
    model, _, x, y = compiled(nt.Scaled(nt.Scaled(loss, 1e5), 1e-3))
    once = dict(curvatures(compiled(nt.Scaled(loss, 100.0))[0], x, y))
    for name, value in curvatures(model, x, y):
        assert_close(value, once[name], name)
    assert model.criterion.dispersion == pytest.approx(100.0)


@pytest.mark.parametrize("c", SCALES)
def test_float32_is_as_near_to_float64_as_without_a_factor(c: float):
    loss = nt.Scaled(nt.CrossEntropyLoss(), c)
    model, _, x, y = compiled(loss, torch.float32)
    exact = dict(curvatures(compiled(loss)[0], x.double(), y))
    for name, value in curvatures(model, x, y):
        if not name.startswith("kfac"):  # other random numbers
            assert_close(value, exact[name].float(), name)


@pytest.mark.interpreter
def test_fused_kernels_compute_the_same():
    loss = nt.Scaled(nt.CrossEntropyLoss(), 1e5)
    model, _, x, y = compiled(loss, torch.float32)
    fused = compiled(loss, torch.float32, backend="triton")[0]
    expected = dict(curvatures(model, x, y))
    for name, value in curvatures(fused, x, y):
        assert_close(value, expected[name], name)


class Doubled(nt.Loss):
    """2·cross-entropy with labels drawn at dispersion 2, all of it from the losses alone."""

    distribution = True
    convex = True
    dispersion = 2.0

    def losses(self, z: Node, y: Node) -> Node:
        return nt.ops.scale(nt.CrossEntropyLoss().losses(z, y), 2.0)


class Fisher(Doubled):
    root = "fisher"


@pytest.mark.parametrize("own", [Doubled(), Fisher()], ids=repr)
def test_a_loss_of_ones_own_names_its_dispersion(own: nt.Loss):
    model, _, x, y = compiled(nt.Scaled(nt.CrossEntropyLoss(), 2.0))
    expected = dict(curvatures(model, x, y))
    for name, value in curvatures(compiled(own)[0], x, y):
        assert_close(value, expected[name], name)


@pytest.mark.parametrize("loss", [nt.MixtureLoss(), nt.SigmoidMarginLoss()], ids=repr)
def test_what_the_loss_refuses_is_refused(loss: nt.Loss):
    model, _, x, y = compiled(nt.Scaled(loss, 2.0))
    lin = model.linearize(x, y)
    for kind in GAUSS_NEWTON[1:]:
        with pytest.raises(nt.NewtritonError, match=r"of Scaled\(.*, 2\.0\) is indefinite"):
            lin.kronecker_factors(kind)
    with pytest.raises(nt.NewtritonError, match="indefinite"):
        lin.ggnvp(model.params)


def test_labels_are_those_of_the_loss():
    model, _, x, _ = compiled(nt.Scaled(nt.BCEWithLogitsLoss(), 3.0))
    with pytest.raises(nt.NewtritonError, match=r"BCEWithLogitsLoss takes labels in \[0, 1\]"):
        model.linearize(x, torch.full((6, 3), 2.0, dtype=F64))
    with pytest.raises(nt.NewtritonError, match=r"takes labels of torch\.float64"):
        model.linearize(x, torch.ones(6, 3))
    classes = torch.arange(6) % 3
    rows = nn.functional.one_hot(classes, 3).to(F64)
    assert torch.equal(model.loss(x, classes), model.loss(x, rows))
    with pytest.raises(nt.NewtritonError, match=r"label 3 is out of range: .* CrossEntropyLoss"):
        compiled(nt.Scaled(nt.CrossEntropyLoss(), 3.0))[0].linearize(x, classes + 1)


@pytest.mark.parametrize("c", [0, -1.0, math.nan, math.inf, "2", None, True])
def test_refuses_factors_that_are_no_positive_numbers(c: object):
    with pytest.raises(nt.NewtritonError, match=r"c is .*: give a number > 0"):
        nt.Scaled(nt.MSELoss(), c)  # type: ignore[arg-type]


def test_refuses_what_is_no_loss_and_what_a_loss_refuses():
    with pytest.raises(nt.NewtritonError, match="loss is 3"):
        nt.Scaled(3, 2.0)  # type: ignore[arg-type]
    with pytest.raises(nt.NewtritonError, match="no distribution, hence no Fisher"):
        compiled(nt.Scaled(nt.SigmoidMarginLoss(root="fisher"), 2.0))


def test_prints_as_the_call_that_made_it_and_equals_its_like():
    text = "Scaled(Scaled(SigmoidMarginLoss(root='clip'), 2.0), 0.5)"
    loss = eval(text, vars(nt).copy())
    assert repr(loss) == text
    assert loss == eval(text, vars(nt).copy())
