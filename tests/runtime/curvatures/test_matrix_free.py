"""Hessian and Gauss–Newton operators: whole, by layer, in both forms, and the rule that chooses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import newtriton as nt
from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.curvatures.kronecker import KroneckerCurvature
from newtriton.runtime.curvatures.matrix_free import (
    BLOCKS,
    MatrixFree,
    WithPreconditioner,
    cheaper_product,
)
from newtriton.runtime.model.linearization import PRODUCTS
from newtriton.runtime.parts.tags import Tag
from newtriton.runtime.solvers.cg import TruncatedCG
from newtriton.runtime.solvers.direct import KFI

from ...tolerances import RELATIVE, assert_close, relative_error
from ..problems import dense, problem


def full(model: nt.Model, lin: nt.Linearization, kind: str) -> Tensor:
    """The data term's matrix."""
    product = lin.hvp if kind == "hessian" else lin.ggnvp
    size = model.layout.numel
    return dense(product, size) - model.weight_decay * torch.eye(size, dtype=torch.float64)


@pytest.mark.parametrize("net", ["mlp", "cnn"])
@pytest.mark.parametrize(
    ("kind", "product"),
    [("hessian", "auto"), ("ggn", "r-operator"), ("ggn", "stored-jacobian"), ("ggn", "auto")],
)
def test_products_of_the_whole_and_of_its_blocks(net: str, kind: str, product: str) -> None:
    model, [(x, y)] = problem(net)
    lin = model.linearize(x, y)
    matrix = full(model, lin, kind)
    layer = torch.empty(model.layout.numel)
    for name, view in model.layout.views(layer).items():
        view.fill_(float(name.partition(".")[0]) if "." in name else 0.0)
    same = layer[:, None] == layer
    v = torch.randn(model.layout.numel, dtype=torch.float64)
    for blocks, expected in (("whole", matrix), ("layers", matrix * same)):
        curvature = MatrixFree(model, kind, blocks=blocks, product=product)
        assert curvature.update(lin)
        assert_close(curvature.mv(v), expected @ v, f"{kind} {blocks} {product}")


@pytest.mark.parametrize(
    ("kind", "blocks", "product"),
    [
        *(("hessian", blocks, "auto") for blocks in BLOCKS),
        *(("ggn", blocks, product) for blocks in BLOCKS for product in PRODUCTS),
    ],
)
def test_weight_decay_leaves_no_rounding_error(kind: str, blocks: str, product: str) -> None:
    """λ v added and subtracted again would take the digits of a product that is small beside it."""
    net = nt.Sequential(nt.Linear(5), nt.Tanh(), nt.Linear(3))
    torch.manual_seed(0)
    x, y = torch.randn(7, 4), torch.rand(7, 3)
    single, plain, exact = (
        nt.compile(net, (4,), nt.MSELoss(), backend="aten", dtype=dtype, weight_decay=decay)
        for dtype, decay in ((torch.float32, 1e6), (torch.float32, 0.0), (torch.float64, 0.0))
    )
    exact.params.copy_(single.params)
    v = torch.randn_like(single.params)
    found = []
    for model in (single, plain, exact):
        curvature = MatrixFree(model, kind, blocks=blocks, product=product)
        curvature.update(model.linearize(x.to(model.dtype), y.to(model.dtype)))
        found.append(curvature.mv(v.to(model.dtype)))
    assert torch.equal(found[0], found[1])
    assert relative_error(found[0].double(), found[2]) < RELATIVE[torch.float32]
    there_and_back = found[1].add(v, alpha=1e6).sub_(v, alpha=1e6)
    assert relative_error(there_and_back.double(), found[2]) > 1e-3


def test_it_may_be_of_a_sample() -> None:
    model, [(x, y)] = problem("mlp")
    curvature = MatrixFree(model)
    curvature.update(model.linearize(x[:5], y[:5]))
    v = torch.randn_like(model.params)
    expected = model.linearize(x[:5], y[:5]).ggnvp(v) - model.weight_decay * v
    assert_close(curvature.mv(v), expected)


def test_only_gauss_newton_curvature_is_semidefinite() -> None:
    model, _ = problem("mlp")
    assert MatrixFree(model, "ggn").tags == {Tag.SEMIDEFINITE}
    assert MatrixFree(model, "hessian").tags == set()
    assert KroneckerCurvature(model).tags == {Tag.SEMIDEFINITE, Tag.BLOCKS}


def test_the_cheaper_form_is_chosen() -> None:
    """Many outputs and few products speak for the R-operator, and so does little memory."""
    net = nt.Sequential(
        *(nt.Conv2d(16, 5, padding=2), nt.ReLU(), nt.MaxPool2d(2)),
        *(nt.Conv2d(16, 5, padding=2), nt.ReLU(), nt.Flatten(), nt.Linear(2)),
    )
    programs = nt.compile(net, (3, 8, 8), nt.CrossEntropyLoss()).programs[True]
    assert cheaper_product(programs, 32, 50) == "stored-jacobian"
    assert cheaper_product(programs, 32, 50, by_layer=True) == "stored-jacobian"
    assert cheaper_product(programs, 32, 1) == "r-operator"
    assert cheaper_product(programs, 32, 50, memory=1000) == "r-operator"
    wide = nt.Sequential(nt.Linear(20), nt.Tanh(), nt.Linear(200))
    programs = nt.compile(wide, (20,), nt.MSELoss()).programs[True]
    assert cheaper_product(programs, 32, 50) == "r-operator"
    mixing = nt.Sequential(nt.Conv2d(4, 3), nt.BatchNorm2d(), nt.Flatten(), nt.Linear(2))
    programs = nt.compile(mixing, (3, 8, 8), nt.CrossEntropyLoss()).programs[True]
    assert cheaper_product(programs, 32, 1000) == "r-operator"


def test_the_last_count_of_products_is_the_forecast_of_the_next() -> None:
    model, [(x, y)] = problem("cnn")
    curvature = MatrixFree(model, forecast=7)
    assert curvature.state_dict() == {"products": 7}
    curvature.update(model.linearize(x, y))
    for _ in range(3):
        curvature.mv(model.params)
    again = MatrixFree(model)
    again.load_state_dict(curvature.state_dict())
    assert again.products == 3


def test_a_preconditioner_of_factors_saves_iterations() -> None:
    model, [(x, y)] = problem("mlp", "mse", weight_decay=0.0)
    lin = model.linearize(10 * x, y)
    plain = MatrixFree(model)
    plain.update(lin)
    both = WithPreconditioner(MatrixFree(model), KroneckerCurvature(model, samples=20))
    assert both.update(lin)
    alone = TruncatedCG(500, 1e-8).solve(plain, 1e-2, lin.gradient)
    helped = TruncatedCG(500, 1e-8, preconditioner=KFI()).solve(both, 1e-2, lin.gradient)
    assert helped.statistics["cg_iterations"] < alone.statistics["cg_iterations"]
    for solution in (alone, helped):
        residual = plain.mv(solution.x) + 1e-2 * solution.x - lin.gradient
        assert float(residual.norm() / lin.gradient.norm()) <= 1e-8 * (1 + 1e-6)
    other = WithPreconditioner(MatrixFree(model), KroneckerCurvature(model, seed=1))
    other.load_state_dict(both.state_dict())
    assert other.preconditioner.gathered == 1


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"kind": "fisher"}, "kind is 'fisher'"),
        ({"blocks": "channels"}, "blocks is 'channels'"),
        ({"product": "dense"}, "product is 'dense'"),
        ({"forecast": 0}, "forecast is 0"),
        ({"kind": "hessian", "product": "stored-jacobian"}, "Gauss-Newton products"),
    ],
)
def test_refuses_options(options: dict, named: str) -> None:
    model, _ = problem("mlp")
    with pytest.raises(NewtritonError, match=named):
        MatrixFree(model, **options)


def test_asks_for_a_linearization_and_for_factors() -> None:
    model, _ = problem("mlp")
    with pytest.raises(NewtritonError, match="update"):
        MatrixFree(model).mv(model.params)
    with pytest.raises(NewtritonError, match="Kronecker"):
        WithPreconditioner(MatrixFree(model), MatrixFree(model))  # type: ignore[arg-type]


def test_a_preconditioner_that_is_not_finite_leaves_both_as_they_were(monkeypatch) -> None:
    model, [(x, y)] = problem("mlp")
    lin = model.linearize(x, y)
    both = WithPreconditioner(MatrixFree(model), KroneckerCurvature(model))
    assert both.update(lin)
    both.mv(lin.gradient)
    monkeypatch.setattr(both.preconditioner, "update", lambda lin: False)
    assert not both.update(lin)
    assert both.curvature.products == 1
