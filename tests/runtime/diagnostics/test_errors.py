"""Errors by layer against dense matrices from PyTorch's autograd."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import newtriton as nt
from newtriton.compiler.curvature.factors import KINDS
from newtriton.compiler.graph.errors import NewtritonError
from newtriton.compiler.layers.models import mlp
from newtriton.runtime.curvatures.kronecker import KroneckerCurvature

from ..problems import problem

TWINS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)),
    "cnn": lambda: nn.Sequential(
        *(nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.SiLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(4, 3, 2), nn.Sigmoid(), nn.Flatten(), nn.Linear(12, 3)),
    ),
}


def matrices(
    model: nt.Model, twin: nn.Module, layer: str, x: Tensor, y: Tensor
) -> tuple[Tensor, Tensor]:
    """A layer's blocks of Hessian and GGN by autograd, for vec([weight.flatten(1), bias])."""
    state = model.state_dict()
    weight, bias = state[f"{layer}.weight"], state.get(f"{layer}.bias")
    m = torch.cat([weight.flatten(1), *([] if bias is None else [bias[:, None]])], 1)

    def outputs(m: Tensor) -> Tensor:
        own = {f"{layer}.weight": m[:, : weight[0].numel()].view_as(weight)}
        if bias is not None:
            own[f"{layer}.bias"] = m[:, -1]
        return torch.func.functional_call(twin, {**state, **own}, x).reshape(-1)

    def loss(z: Tensor) -> Tensor:
        return nn.functional.cross_entropy(z.view(len(x), -1), y)

    hessian = torch.func.hessian(lambda m: loss(outputs(m)))(m).reshape(m.numel(), -1)
    jacobian = torch.func.jacrev(outputs)(m).reshape(-1, m.numel())
    return hessian, jacobian.T @ torch.func.hessian(loss)(outputs(m)) @ jacobian


def places(model: nt.Model, layer: str, of: str) -> Tensor:
    """Where a layer's parameters `of` stand in that vector."""
    state = model.state_dict()
    weight, has_bias = state[f"{layer}.weight"], f"{layer}.bias" in state
    at = torch.arange(len(weight) * (weight[0].numel() + has_bias)).view(len(weight), -1)
    if not has_bias:
        return at.reshape(-1)
    return {"bias": at[:, -1:], "weight": at[:, :-1], "layer": at}[of].reshape(-1)


@pytest.mark.parametrize("of", ["bias", "weight", "layer"])
@pytest.mark.parametrize("net", TWINS)
def test_errors_are_those_of_dense_blocks(net: str, of: str) -> None:
    model, [(x, y)] = problem(net, weight_decay=0.1)
    lin, twin = model.linearize(x, y), TWINS[net]().double()
    errors = nt.layer_errors(lin, of=of)
    layers = [
        b.layer for b in model.blocks if of != "bias" or f"{b.layer}.bias" in model.layout.slices
    ]
    assert list(errors.norms) == layers
    assert list(errors.absolute) == [*KINDS, "ggn"]
    for layer in layers:
        at = places(model, layer, of)
        hessian, ggn = (m[at][:, at] for m in matrices(model, twin, layer, x, y))
        values, vectors = torch.linalg.eigh(hessian)
        expected = vectors @ values.abs().diag() @ vectors.T
        assert errors.norms[layer] == pytest.approx(float(expected.norm()), rel=1e-9)
        error = float((ggn - expected).norm())
        assert errors.absolute["ggn"][layer] == pytest.approx(error, rel=1e-9)
        for kind in ("empirical", "kflr", "kfra", "pch-1", "pch-2"):
            factors = lin.kronecker_factors(kind)[layer]
            assert isinstance(factors, nt.KroneckerFactors)
            block = torch.kron(factors.G, factors.A)[at][:, at]
            error = float((block - expected).norm())
            assert errors.absolute[kind][layer] == pytest.approx(error, rel=1e-9)
            assert errors.relative[kind][layer] == pytest.approx(error / errors.norms[layer])
    for kind, by_layer in errors.absolute.items():
        assert errors.totals[kind] == pytest.approx(math.sqrt(sum(e**2 for e in by_layer.values())))


def test_the_last_layers_bias_has_its_true_hessian() -> None:
    """Its block is E[B], which Gauss–Newton's and the recursive kinds take as it is."""
    model, [(x, y)] = problem("mlp")
    relative = nt.layer_errors(model.linearize(x, y)).relative
    for kind in ("kflr", "kfra", "pch-1", "pch-2", "ggn"):
        assert relative[kind]["2"] < 1e-12
    assert relative["kfac"]["2"] > 1e-3
    assert relative["ggn"]["0"] == pytest.approx(relative["kflr"]["0"])


@pytest.mark.parametrize("of", ["bias", "weight", "layer"])
def test_one_sample_of_a_linear_network_has_kronecker_curvature(of: str) -> None:
    model, [(x, y)] = problem("quadratic")
    lin = model.linearize(x[:1], y[:1])
    errors = nt.layer_errors(lin, ("kflr", "kfra", "pch-1", "ggn", "hessian"), of=of)
    assert max(by_layer[""] for by_layer in errors.relative.values()) < 1e-12
    assert "(net)" in str(errors)


def test_pch_is_nearer_to_the_hessian_than_kfra_and_that_than_the_empirical_fisher() -> None:
    """The order of the totals in EA-CG's Table 2, on digits, averaged over the first steps."""
    (x, y), _ = nt.digits()
    model = nt.compile(mlp((32, 16)), (1, 8, 8), nt.CrossEntropyLoss(), dtype=torch.float64)
    optimizer = nt.EACG(model, lr=0.1)
    kinds = ("empirical", "kfra", "pch-1", "pch-2")
    totals = dict.fromkeys(kinds, 0.0)
    for i, batch in enumerate(nt.Batches(x.double(), y, 100)):
        optimizer.step(*batch)
        if i % 3 == 0:
            for kind, total in nt.layer_errors(model.linearize(*batch), kinds).totals.items():
                totals[kind] += total
    assert max(totals["pch-1"], totals["pch-2"]) < totals["kfra"] < totals["empirical"]


def test_products_that_are_not_finite_have_no_errors() -> None:
    model, [(x, y)] = problem("mlp")
    model.params.fill_(math.nan)
    with pytest.raises(NewtritonError, match="not finite"):
        nt.layer_errors(model.linearize(x, y))


def test_errors_are_small_in_float32() -> None:
    (x, y), _ = nt.digits()
    model = nt.compile(nt.models.small_cnn(), (1, 8, 8), nt.CrossEntropyLoss())
    lin = model.linearize(x[:16], y[:16])
    assert nt.layer_errors(lin, ("kflr",)).relative["kflr"]["7"] < 1e-5


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda lin: nt.layer_errors(lin, of="gain"), "of is 'gain'"),
        (lambda lin: nt.layer_errors(lin, ("kfac", "fisher")), "curvature is 'fisher'"),
        (lambda lin: nt.layer_errors(lin, of="weight", limit=60), "layer '0'.*72.*limit of 60"),
        (lambda lin: nt.layer_errors(lin, {"own": KroneckerCurvature(lin.model)}), "update"),
    ],
)
def test_refuses_what_there_cannot_be(
    call: Callable[[nt.Linearization], object], named: str
) -> None:
    model, [(x, y)] = problem("cnn")
    with pytest.raises(NewtritonError, match=named):
        call(model.linearize(x, y))


def batch_norm_and_groups() -> nt.Linearization:
    """A linearization of a network with batch norm and a grouped convolution."""
    net = nt.Sequential(
        *(nt.Conv2d(4, 3, groups=2), nt.BatchNorm2d(), nt.Tanh(), nt.Flatten(), nt.Linear(3))
    )
    model = nt.compile(net, (2, 4, 4), nt.CrossEntropyLoss(), dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 2, 4, 4, generator=generator, dtype=torch.float64)
    return model.linearize(x, torch.arange(6) % 3)


def test_batch_norm_and_groups() -> None:
    """The kinds that take batch statistics serve; KFRA says which do."""
    lin = batch_norm_and_groups()
    for of in ("bias", "weight", "layer"):
        errors = nt.layer_errors(lin, ("kflr", "ggn"), of=of)
        assert list(errors.norms) == ["0", "1", "4"]
    with pytest.raises(NewtritonError, match="'kfac' or 'kflr'"):
        nt.layer_errors(lin)


def test_a_network_without_biases() -> None:
    net = nt.Linear(3, bias=False)
    model = nt.compile(net, (4,), nt.CrossEntropyLoss(), dtype=torch.float64)
    lin = model.linearize(torch.ones(2, 4, dtype=torch.float64), torch.tensor([0, 1]))
    with pytest.raises(NewtritonError, match="no layer has a bias"):
        nt.layer_errors(lin)


def test_approximations_are_given_by_name() -> None:
    model = nt.compile(nt.Linear(1), (2,), nt.MSELoss(), device="cpu", backend="aten")
    lin = model.linearize(torch.ones(3, 2), torch.zeros(3, 1))
    with pytest.raises(NewtritonError, match="approximations have a key 3: give strings"):
        nt.layer_errors(lin, {3: nt.MatrixFree(model)})  # type: ignore[dict-item]
