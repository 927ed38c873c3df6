"""Models and optimizers are copied, pickled and passed on: the copy takes the same steps, alone."""

from __future__ import annotations

import copy
import functools
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import newtriton as nt

X, Y = torch.randn(60, 4, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 3
STEP = functools.partial(torch.optim.lr_scheduler.StepLR, step_size=2, gamma=0.5)


def network(norm: bool = True) -> nt.Sequential:
    middle = nt.BatchNorm1d() if norm else nt.Tanh()
    return nt.Sequential(nt.Linear(6), middle, nt.Dropout(0.2), nt.Tanh(), nt.Linear(3))


def compiled(net: Any = None) -> nt.Model:
    net, loss = network() if net is None else net, nt.CrossEntropyLoss()
    return nt.compile(net, (4,), loss, backend="aten", device="cpu", weight_decay=1e-3, seed=2)


def captured() -> nt.Model:
    layers = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.2), nn.Tanh(), nn.Linear(6, 3)
    torch.manual_seed(0)
    return nt.from_torch(nn.Sequential(*layers), X[:2], nt.CrossEntropyLoss(), backend="aten")


def of_parts(model: nt.Model) -> nt.SecondOrder:
    curvature = nt.WithPreconditioner(nt.MatrixFree(model), nt.KroneckerCurvature(model))
    solver, rule = nt.TruncatedCG(preconditioner=nt.KFI()), nt.LevenbergMarquardt()
    return nt.SecondOrder(model, curvature, solver, rule, average=nt.PolyakAverage())


OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "FITRE": nt.FITRE,
    "KFAC": lambda model: nt.KFAC(model, every=2),
    "NewtonCG": lambda model: nt.NewtonCG(model, sample=0.5),
    "parts": of_parts,
    "ekfac": lambda model: nt.SecondOrder(model, "ekfac", "eigen"),
    "Adam": lambda model: nt.TorchOptimizer(model, torch.optim.Adam, lr=0.1, schedule=STEP),
    "Adafactor": lambda model: nt.TorchOptimizer(model, torch.optim.Adafactor),
    "L-BFGS": lambda model: nt.TorchOptimizer(model, torch.optim.LBFGS),
    "preconditioned": lambda model: nt.Preconditioned(model, torch.optim.SGD, lr=0.1, momentum=0.9),
}


def pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


def values(model: nt.Model) -> dict[str, torch.Tensor]:
    return {"params": model.params.clone(), **{n: b.clone() for n, b in model.buffers.items()}}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def check_twins(model: nt.Model, optimizer: Any, other: nt.Model, theirs: Any) -> None:
    """Both take bitwise equal steps, and neither moves the other."""
    assert theirs.model is other
    assert other is not model
    start = values(model)
    assert same(values(other), start)
    reports = [optimizer.step(X, Y) for _ in range(3)]
    assert same(values(other), start)
    ended = values(model)
    assert [repr(theirs.step(X, Y)) for _ in range(3)] == [repr(report) for report in reports]
    assert same(values(model), ended)
    assert same(values(other), ended)


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_copy_takes_the_same_steps(name: str, copied: Callable[[Any], Any]) -> None:
    model = compiled()
    optimizer = OPTIMIZERS[name](model)
    for _ in range(3):
        optimizer.step(X, Y)
    check_twins(model, optimizer, *copied((model, optimizer)))


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_a_captured_model_copies_its_module(copied: Callable[[Any], Any]) -> None:
    model = captured()
    model.freeze("0")
    optimizer = nt.KFAC(model)
    optimizer.step(X, Y)
    other, theirs = copied((model, optimizer))
    assert other.to_torch() is not model.to_torch()
    assert other.frozen == model.frozen == {"0.weight", "0.bias"}
    check_twins(model, optimizer, other, theirs)
    ours = model.to_torch().state_dict()
    for name, tensor in other.to_torch().state_dict().items():
        assert torch.equal(tensor, ours[name])
        assert tensor.data_ptr() != ours[name].data_ptr()


def test_what_has_been_set_since_is_copied() -> None:
    model = compiled()
    model.weight_decay = 0.5
    model.freeze("4")
    optimizer = nt.SecondOrder(model, rule=nt.Fixed(0.1))
    optimizer.damping = 0.25
    optimizer.rule.most = 0.75  # type: ignore[attr-defined]
    other = copy.deepcopy(optimizer)
    assert (other.rule.most, other.damping, other.model.weight_decay) == (0.75, 0.25, 0.5)
    assert other.model.frozen == {"4.weight", "4.bias"}


def test_a_copy_of_an_optimizer_alone_has_a_model_of_its_own() -> None:
    optimizer = nt.KFAC(compiled())
    other = copy.deepcopy(optimizer)
    assert other.model is not optimizer.model
    assert other.curvature.model is other.model
    assert copy.copy(optimizer).model is optimizer.model


def test_a_linearization_says_what_is_copied_in_its_place() -> None:
    lin = compiled().linearize(X, Y)
    for copied in (copy.deepcopy, pickle.dumps):
        with pytest.raises(nt.NewtritonError, match="copy the model, and linearize there"):
            copied(lin)


def test_no_graph_is_pickled() -> None:
    model = compiled()
    model.linearize(X, Y).hvp(model.params)
    assert b"graph.ir" not in pickle.dumps((model, nt.FITRE(model)))


class Shifted:
    """A user's layer that keeps a function."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def build(self, x: Any, scope: Any) -> Any:
        return self.function(x)


def test_a_function_that_cannot_be_pickled_is_named() -> None:
    model = compiled(nt.Sequential(nt.Linear(3), Shifted(lambda x: x)))
    with pytest.raises(nt.NewtritonError, match=r"this Model .*<lambda> of .*test_remaking\.py"):
        pickle.dumps(model)
    with pytest.raises(nt.NewtritonError, match="<lambda>"):
        pickle.dumps(nt.FITRE(model))
    assert torch.equal(copy.deepcopy(model)(X), model(X))


def test_a_schedule_that_cannot_be_pickled_is_named() -> None:
    optimizer = nt.TorchOptimizer(
        compiled(), torch.optim.SGD, lr=0.1, schedule=lambda o: STEP(o, last_epoch=-1)
    )
    with pytest.raises(nt.NewtritonError, match=r"this TorchOptimizer .*<lambda>"):
        pickle.dumps(optimizer)
    assert copy.deepcopy(optimizer).schedule is not optimizer.schedule


def test_an_optimizer_without_a_name_for_an_argument_says_which_there_are() -> None:
    with pytest.raises(nt.NewtritonError, match=r"KFAC\(\) has no option 'momentun'.*momentum"):
        nt.KFAC(compiled(), momentun=0.9)  # type: ignore[call-arg]
    with pytest.raises(nt.NewtritonError, match="too many positional arguments"):
        nt.KFI(1, True, 3)  # type: ignore[call-arg]


def _steps(_: int, optimizer: Any, found: Any) -> None:
    optimizer.step(X, Y)
    found.copy_(optimizer.model.params)


def test_another_process_takes_the_same_step() -> None:
    optimizer = nt.KFAC(compiled())
    optimizer.step(X, Y)
    before, found = values(optimizer.model), torch.zeros_like(optimizer.model.params)
    torch.multiprocessing.spawn(_steps, (optimizer, found.share_memory_()), nprocs=1)
    assert same(values(optimizer.model), before)
    optimizer.step(X, Y)
    assert torch.equal(optimizer.model.params, found)


@pytest.mark.interpreter
def test_a_model_on_fused_kernels_is_copied() -> None:
    net = nt.Sequential(nt.Linear(3))
    model = nt.compile(net, (4,), nt.CrossEntropyLoss(), backend="triton", device="cpu")
    other = pickled(model)
    assert torch.equal(other.linearize(X, Y).gradient, model.linearize(X, Y).gradient)
