"""Diagonals against those of dense matrices; estimates are as far off as they say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import newtriton as nt
from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.diagnostics.diagonals import Diagonal, _squares
from tests.tolerances import assert_close

from ..problems import dense, problem

F64 = torch.float64
IMAGES = torch.randn(6, 2, 6, 6, dtype=F64, generator=torch.Generator().manual_seed(0))
CLASSES = torch.tensor([0, 1, 2, 0, 2, 1])
SOME = torch.tensor([0, 1, -100, 0, -100, 1])
IDS = torch.randint(0, 7, (5, 4), generator=torch.Generator().manual_seed(0))


def _images(*layers: Any) -> nt.Sequential:
    return nt.Sequential(*layers, nt.Flatten(), nt.Linear(3))


CE = nt.CrossEntropyLoss
# Whether squared gradients of the samples make the diagonal; network, loss and data.
CASES: dict[str, tuple[bool, Any, nt.Loss, Tensor, Tensor]] = {
    "cnn": (
        True,
        _images(nt.Conv2d(4, 3, padding=1), nt.SiLU(), nt.MaxPool2d(2), nt.Conv2d(4, 2, groups=2)),
        CE(), IMAGES, CLASSES,
    ),
    "norm": (True, _images(nt.Conv2d(4, 3), nt.GroupNorm(2), nt.SiLU()), CE(), IMAGES, CLASSES),
    "prelu": (True, _images(nt.Conv2d(4, 3), nt.PReLU()), CE(), IMAGES, CLASSES),
    "ignored": (True, _images(nt.Conv2d(4, 3), nt.SiLU()), CE(ignore_index=-100), IMAGES, SOME),
    "weighted": (
        True, _images(nt.Conv2d(4, 3), nt.SiLU()), CE(weight=[1.0, 2.0, 0.5]), IMAGES, CLASSES,
    ),
    "mse": (
        True, _images(nt.Residual(nt.Conv2d(2, 3, padding=1))), nt.MSELoss(), IMAGES,
        IMAGES.flatten(1)[:, :3],
    ),
    "batch norm": (False, _images(nt.Conv2d(4, 3), nt.BatchNorm2d()), CE(), IMAGES, CLASSES),
    "transposed": (False, _images(nt.ConvTranspose2d(2, 3)), CE(), IMAGES, CLASSES),
    "sequence": (
        False, nt.Sequential(nt.Embedding(7, 6), nt.LayerNorm(), nt.Linear(7)), CE(), IDS, IDS,
    ),
}  # fmt: skip


def _model(name: str) -> tuple[bool, nt.Model, tuple[Tensor, Tensor]]:
    squares, net, loss, x, y = CASES[name]
    shape = nt.InputSpec(tuple(x.shape[1:]), "float" if x.is_floating_point() else "int")
    return squares, nt.compile(net, shape, loss, weight_decay=0.1, dtype=F64), (x, y)


@pytest.mark.parametrize("name", CASES)
def test_the_gauss_newton_matrixs_is_exact_from_samples_or_estimated(name: str) -> None:
    squares, model, batch = _model(name)
    lin = model.linearize(*batch)
    assert _squares(lin) is squares
    expected = dense(lin.ggnvp, model.layout.numel).diagonal()
    found = nt.diagonal(lin, "ggn", products=30)
    if squares:
        assert_close(found.values, expected)
        assert (found.products, float(found.errors.max())) == (0, 0.0)
    else:
        _assert_as_far_off_as_it_says(found, expected)


def _assert_as_far_off_as_it_says(found: Diagonal, expected: Tensor) -> None:
    """Elements off by their standard errors, in the mean of their squares."""
    known = found.errors > 0
    assert torch.allclose(found.values[~known], expected[~known])
    scores = (found.values - expected)[known] / found.errors[known]
    assert 0.7 < float(scores.square().mean().sqrt()) < 1.5
    assert found.products == 30


@pytest.mark.parametrize("matrix", ["hessian", "ggn"])
def test_a_small_matrix_has_its_exact_diagonal(matrix: str) -> None:
    model, [(x, y)] = problem("mlp", weight_decay=0.1)
    lin = model.linearize(x, y)
    expected = dense(lin.hvp if matrix == "hessian" else lin.ggnvp, model.layout.numel).diagonal()
    found = nt.diagonal(lin, matrix)
    assert_close(found.values, expected)
    assert_close(model.flatten(found.by_name()), expected)
    assert float(found.errors.abs().max()) == 0.0


def test_the_hessians_is_estimated_without_bias() -> None:
    model, [(x, y)] = problem("cnn", weight_decay=0.1)
    lin = model.linearize(x, y)
    expected = dense(lin.hvp, model.layout.numel).diagonal()
    _assert_as_far_off_as_it_says(nt.diagonal(lin, products=30), expected)


@pytest.mark.parametrize("matrix", ["hessian", "ggn"])
def test_frozen_parameters_have_none(matrix: str) -> None:
    model, [(x, y)] = problem("cnn", weight_decay=0.1)
    dict(model.named_parameters())["3.weight"].requires_grad_(False)
    found = nt.diagonal(model.linearize(x, y), matrix, products=20)
    values, errors = (model.unflatten(v) for v in (found.values, found.errors))
    assert not values["3.weight"].any() and not errors["3.weight"].any()
    assert values["3.bias"].any()
    assert [line.split()[0] for line in str(found).splitlines()] == [
        "diagonal", "0.weight", "3.bias", "6.weight", "6.bias",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda lin: nt.diagonal(lin, "fisher"), "matrix is 'fisher'"),
        (lambda lin: nt.diagonal(lin, products=1), "products is 1"),
    ],
)
def test_refuses_what_there_cannot_be(
    call: Callable[[nt.Linearization], object], named: str
) -> None:
    model, [(x, y)] = problem("mlp")
    with pytest.raises(NewtritonError, match=named):
        call(model.linearize(x, y))
