"""Frozen parameters: no derivative, no curvature, no weight decay, no step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import newtriton as nt
from newtriton.compiler.graph.cost import flops
from newtriton.runtime.curvatures.kronecker import KroneckerCurvature
from tests.tolerances import assert_close

F64 = torch.float64
FROZEN = ("0.weight", "0.bias", "4.bias", "6.weight", "6.bias")


def network(frozen: bool) -> nt.Sequential:
    conv, head = nt.Conv2d(4, 3, padding=1), nt.Sequential(nt.Linear(3), nt.Tanh())
    if frozen:
        conv.freeze()
        head.freeze()
    return nt.Sequential(
        conv, nt.BatchNorm2d(), nt.SiLU(), nt.Flatten(), nt.Linear(5), nt.Tanh(), nt.Linear(4), head
    )


def compiled(*names: str, layers: bool = False, **options: Any) -> nt.Model:
    options = {"dtype": F64, "weight_decay": 0.1, "backend": "aten", **options}
    model = nt.compile(network(layers), (2, 4, 4), nt.CrossEntropyLoss(), **options)
    model.freeze(*names)
    return model


def batch(dtype: torch.dtype = F64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 2, 4, 4, generator=generator, dtype=dtype)
    return x, torch.randint(0, 3, (6,), generator=generator)


def mask(model: nt.Model) -> Tensor:
    """1 where a parameter is trained, 0 where it is frozen."""
    ones = {name: torch.ones_like(p) for name, p in model.unflatten(model.params).items()}
    return model.flatten({n: x * (n not in model.frozen) for n, x in ones.items()})


MODELS: dict[str, Callable[[], nt.Model]] = {
    "layers": lambda: compiled(layers=True),
    "parameters": lambda: compiled(*FROZEN),
}
models = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)


def test_a_frozen_layer_freezes_what_is_in_it() -> None:
    assert compiled(layers=True).frozen == {"0.weight", "0.bias", "7.0.weight", "7.0.bias"}
    assert repr(nt.Sequential(nt.Linear(2).freeze())) == "Sequential(Linear(2).freeze())"


@models
def test_derivatives_are_those_of_the_others(make: Callable[[], nt.Model]) -> None:
    model, whole, (x, y) = make(), compiled(), batch()
    trained, v = mask(model), torch.randn_like(model.params)
    lin, expected = model.linearize(x, y), whole.linearize(x, y)
    assert_close(lin.gradient, expected.gradient * trained)
    assert_close(model.gradient(x, y)[1], expected.gradient * trained)
    for curvature in ("hessian", "ggn"):
        product = expected.data_product(v * trained, curvature) * trained
        assert_close(lin.data_product(v, curvature), product)
        assert_close(lin.data_product(v, curvature, by_layer=True) * ~trained.bool(), v * 0.0)
        assert_close(
            lin.quadratic_forms([v, x.new_ones(len(v))], curvature),
            expected.quadratic_forms([v * trained, trained], curvature),
        )
    decay = 0.05 * float((whole.params * (1 - trained)).square().sum())
    assert lin.objective == pytest.approx(expected.objective - decay, rel=1e-12)


def test_no_work_is_done_below_a_frozen_layer() -> None:
    frozen, whole = compiled("0", "1", "4"), compiled()
    costs = [flops(m.programs[True].linearize.graph, 6) for m in (frozen, whole)]
    forward = flops(whole.programs[True].evaluate.graph, 6)
    assert costs[0] < forward + 0.1 * (costs[1] - forward)
    given = {str(key) for key in frozen.programs[True].hvp.inputs}
    assert not {"v0:0.weight", "v0:1.bias", "v0:4.weight"} & given


@pytest.mark.parametrize("kind", ["kfac", "empirical", "kflr"])
def test_factors_are_those_of_the_others(kind: str) -> None:
    model, whole, (x, y) = compiled("0", "4.bias", "6.weight"), compiled(), batch()
    seed = lambda: torch.Generator().manual_seed(3)  # noqa: E731
    found = model.linearize(x, y).kronecker_factors(kind, generator=seed())
    expected = whole.linearize(x, y).kronecker_factors(kind, generator=seed())
    assert found.keys() == {"1", "4", "6", "7.0"}
    assert_close(found["7.0"].A, expected["7.0"].A)
    assert_close(found["4"].A, expected["4"].A[:-1, :-1])
    assert_close(found["4"].G, expected["4"].G)
    assert_close(found["6"].diagonal["6.bias"], expected["6"].G.diagonal())


OPTIMIZERS: dict[str, Callable[[nt.Model], Any]] = {
    "FITRE": nt.FITRE,
    "KFAC": nt.KFAC,
    "KFLR": nt.KFLR,
    "EKFAC": lambda model: nt.SecondOrder(model, "ekfac", "eigen"),
    "NewtonCG": nt.NewtonCG,
    "layers": lambda model: nt.SecondOrder(model, "ggn-layers", "truncated-cg"),
    "noise": lambda model: nt.SecondOrder(model, "kfac", noise="wiener", follow=True),
    "average": lambda model: nt.KFAC(model, average=0.9),
    "SGD": lambda model: nt.TorchOptimizer(model, torch.optim.SGD, lr=0.1, weight_decay=0.1),
    "AdamW": lambda model: nt.TorchOptimizer(model, torch.optim.AdamW, lr=0.1),
    "L-BFGS": lambda model: nt.TorchOptimizer(model, torch.optim.LBFGS, max_iter=3),
    "preconditioned": lambda model: nt.Preconditioned(
        model, torch.optim.AdamW, lr=0.01, weight_decay=0.1
    ),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_no_optimizer_moves_them(make: Callable[[nt.Model], Any]) -> None:
    model, (x, y) = compiled(*FROZEN, layers=True), batch()
    before, trained = model.params.clone(), mask(model).bool()
    optimizer = make(model)
    reports = [optimizer.step(x, y) for _ in range(3)]
    assert torch.equal(model.params[~trained], before[~trained])
    moved = model.params != before
    assert moved[trained].all() and reports[-1].loss < reports[0].loss


def test_a_flag_of_a_view_freezes_and_releases() -> None:
    model, (x, y) = compiled(), batch()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    assert len(model.frozen) == 10 and not model.linearize(x, y).gradient.any()
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name not in FROZEN
    assert model.frozen == set(FROZEN)
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    assert flags == {name: name not in FROZEN for name in flags}


def test_what_was_made_before_says_that_it_is_stale() -> None:
    model, (x, y) = compiled(), batch()
    lin, optimizers = model.linearize(x, y), [nt.KFAC(model), OPTIMIZERS["SGD"](model)]
    model.freeze("4")
    with pytest.raises(nt.NewtritonError, match="the frozen parameters have changed"):
        lin.hvp(model.params)
    for optimizer in optimizers:
        with pytest.raises(nt.NewtritonError, match=r"4\.bias, 4\.weight: frozen or released"):
            optimizer.step(x, y)
    model.freeze("4", frozen=False)
    assert all(math.isfinite(optimizer.step(x, y).loss) for optimizer in optimizers)


def test_an_optimizer_needs_something_to_train() -> None:
    model = compiled("0", "1", "4", "6", "7")
    assert model(batch()[0]).shape == (6, 3)
    for make in (nt.FITRE, OPTIMIZERS["SGD"]):
        with pytest.raises(nt.NewtritonError, match="all parameters are frozen"):
            make(model)
    with pytest.raises(nt.NewtritonError, match="freeze names '9': give parameters or layers"):
        model.freeze("9")


@pytest.mark.interpreter
def test_fused_kernels_take_them_wherever_they_lie() -> None:
    found, expected = (
        compiled("0", "4.bias", "7", backend=backend, dtype=torch.float32)
        for backend in ("triton", "aten")
    )
    x, y = batch(torch.float32)
    lins = [model.linearize(x, y) for model in (found, expected)]
    assert_close(lins[0].gradient, lins[1].gradient)
    assert_close(lins[0].hvp(found.params), lins[1].hvp(found.params))
    assert not (lins[0].gradient[mask(found) == 0]).any()


def test_a_curvature_of_a_frozen_layer_is_refused() -> None:
    with pytest.raises(nt.NewtritonError, match="layers names '2', which is frozen"):
        KroneckerCurvature(plain("2"), layers=["0", "2"])


def plain(*names: str) -> nt.Model:
    layers = [nt.Linear(6), nt.Tanh(), nt.Linear(5), nt.Tanh(), nt.Linear(3)]
    model = nt.compile(nt.Sequential(*layers), (4,), nt.CrossEntropyLoss(), dtype=F64)
    model.freeze(*names)
    return model


def rows() -> tuple[Tensor, Tensor]:
    return torch.randn(7, 4, dtype=F64), torch.tensor([0, 1, 2, 0, 1, 2, 0])


@pytest.mark.parametrize("names", [("0", "2.bias"), ("2",), ("4", "0.weight")], ids=str)
def test_a_stored_jacobian_is_of_the_others(names: tuple[str, ...]) -> None:
    model, whole, (x, y) = plain(*names), plain(), rows()
    v, trained = torch.randn_like(model.params), mask(model)
    found = model.linearize(x, y).ggnvp(v, "stored-jacobian")
    expected = whole.linearize(x, y).ggnvp(v * trained, "stored-jacobian")
    assert_close(found, expected * trained)


def test_recursive_factors_go_down_to_the_lowest_layer_that_is_trained() -> None:
    model, whole, (x, y) = plain("0", "2.bias"), plain(), rows()
    for kind in ("kfra", "pch-1"):
        found = model.linearize(x, y).kronecker_factors(kind)
        expected = whole.linearize(x, y).kronecker_factors(kind)
        assert found.keys() == {"2", "4"}
        assert_close(found["2"].G, expected["2"].G)
        assert_close(found["2"].A, expected["2"].A[:-1, :-1])
        with pytest.raises(nt.MissingRule, match=f"{kind} has no diagonal block"):
            plain("2.weight").linearize(x, y).kronecker_factors(kind)


def test_diagnoses_leave_them_out() -> None:
    model, (x, y) = plain("2"), rows()
    lin = model.linearize(x, y)
    trained = mask(model).bool()
    hessian = torch.stack([lin.hvp(unit) for unit in torch.eye(len(trained), dtype=F64)])
    values = torch.linalg.eigvalsh(hessian[trained][:, trained])
    found = nt.spectrum(lin, k=1)
    assert_close(torch.tensor([found.smallest[0], found.largest[0]]), values[[0, -1]].float())
    assert nt.alignment(lin, ("kflr",)).layers["kflr"].keys() == {"0", "4"}
    assert nt.layer_errors(lin, ("ggn",)).norms.keys() == {"0", "4"}
