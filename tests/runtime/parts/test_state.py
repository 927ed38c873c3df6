"""What a saved state is checked for, and that no fault leaves anything changed."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import newtriton as nt
from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.parts.state import Maybe, Number, Random, Shaped, as_described, check_state

from ..problems import problem
from ..stand_in import assert_identical

SPEC = {
    "count": Number(int, 0),
    "size": Number(float, 0.0),
    "part": {"x": Shaped((2, None), torch.float64)},
    "last": Maybe(Shaped((3,), torch.float32)),
    "generator": Random(torch.Generator()),
}
GOOD = {
    "count": 3,
    "size": 1.5,
    "part": {"x": torch.zeros(2, 7, dtype=torch.float64)},
    "last": None,
    "generator": torch.Generator().get_state(),
}


def test_takes_what_the_specification_describes() -> None:
    check_state(SPEC, GOOD)
    check_state(SPEC, {**GOOD, "last": torch.zeros(3), "size": 2})
    found = check_state(SPEC, {**GOOD, "count": np.int64(3), "size": np.float32(1.5)})
    assert (type(found["count"]), type(found["size"])) == (int, float)
    assert found == GOOD


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"count": -1}, "count is -1, not int of at least 0"),
        ({"count": 1.5}, r"count is 1\.5, not int"),
        ({"count": True}, "count is True, not int"),
        ({"count": np.float64(3)}, r"count is np\.float64\(3\.0\), not int"),
        ({"size": "1"}, "size is '1', not float"),
        ({"size": float("nan")}, "size is nan"),
        ({"part": None}, "part is NoneType, not a mapping"),
        ({"part": {}}, r"missing part\.x"),
        ({"part": {"x": torch.zeros(2, 7)}}, r"part\.x is torch\.float32 of shape \(2, 7\)"),
        ({"part": {"x": torch.zeros(3, 7).double()}}, r"not torch\.float64 of 2×any"),
        ({"part": {"x": torch.zeros(2).double()}}, r"of shape \(2,\)"),
        ({"last": [1.0]}, "last is list, not a tensor"),
        ({"generator": torch.zeros(3, dtype=torch.uint8)}, "generator is"),
        ({"more": 1}, "unexpected more"),
    ],
)
def test_names_every_fault(change: dict, named: str) -> None:
    with pytest.raises(NewtritonError, match=f"load_state_dict: .*{named}"):
        check_state(SPEC, {**GOOD, **change})


def test_what_is_no_specification_is_said_with_what_is() -> None:
    for check in (as_described, check_state):
        with pytest.raises(
            NewtritonError, match=r"part\.n is described by <class 'int'>: give what"
        ):
            check({"part": {"n": int}}, {"part": {"n": 3}})  # type: ignore[dict-item]


def test_a_state_that_could_not_be_loaded_is_not_saved() -> None:
    assert as_described(SPEC, GOOD) is GOOD
    with pytest.raises(NewtritonError, match="is not what state_spec says: missing size"):
        as_described(SPEC, {name: part for name, part in GOOD.items() if name != "size"})


def test_lists_all_faults_at_once_and_takes_mappings_only() -> None:
    with pytest.raises(NewtritonError, match=r"count is -1.*last is list"):
        check_state(SPEC, {**GOOD, "count": -1, "last": []})
    with pytest.raises(NewtritonError, match="the state is list"):
        check_state(SPEC, [])


OPTIMIZERS = {
    "fitre": lambda model: nt.FITRE(model, momentum=0.5),
    "kfac": lambda model: nt.KFAC(model, average=0.9),
    "eacg": lambda model: nt.EACG(model, factors="kfac", momentum=0.5),
    "newton-cg": lambda model: nt.NewtonCG(model, preconditioner="kfac"),
    "eigen": lambda model: nt.SecondOrder(model, "empirical", "eigen", "fixed"),
    "sgd": lambda model: nt.TorchOptimizer(model, torch.optim.SGD, lr=0.1, momentum=0.9),
    "preconditioned": lambda model: nt.Preconditioned(model, torch.optim.SGD, lr=0.1, momentum=0.9),
    "l-bfgs": lambda model: nt.TorchOptimizer(model, torch.optim.LBFGS, lr=0.1),
}
DELEGATED = ("sgd", "l-bfgs", "preconditioned")  # torch.optim's own state is checked loosely


def spoilt(state: dict):
    """The state with one entry missing, of another type or of another shape, each in turn."""

    def walk(path: tuple, value: object):
        if isinstance(value, dict):
            for name, part in value.items():
                yield from walk((*path, name), part)
        elif path:
            yield path, "no such thing"
            if isinstance(value, torch.Tensor) and value.numel() > 1:
                yield path, value[..., :-1]

    for path, bad in walk((), state):
        broken = copy.deepcopy(state)
        inner = broken
        for name in path[:-1]:
            inner = inner[name]
        inner[path[-1]] = bad
        yield broken


@pytest.mark.parametrize("name", [n for n in OPTIMIZERS if n not in DELEGATED])
def test_no_part_of_a_state_that_does_not_fit_is_taken_over(name: str) -> None:
    model, [(x, y)] = problem("mlp")
    optimizer = OPTIMIZERS[name](model)
    other = OPTIMIZERS[name](model)
    optimizer.step(x, y)
    state, before = optimizer.state_dict(), other.state_dict()
    for broken in spoilt(state):
        with pytest.raises(NewtritonError, match="load_state_dict"):
            other.load_state_dict(broken)
        assert_identical(other.state_dict(), before)
    other.load_state_dict(state)
    assert_identical(other.state_dict(), state)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_state_of_another_network_or_optimizer_is_refused(name: str) -> None:
    model, [(x, y)] = problem("mlp")
    optimizer = OPTIMIZERS[name](model)
    optimizer.step(x, y)
    before = optimizer.state_dict()
    for net, others in (("cnn", [name]), ("mlp", [n for n in OPTIMIZERS if n != name])):
        elsewhere, [batch] = problem(net)
        for other in others:
            foreign = OPTIMIZERS[other](elsewhere)
            foreign.step(*batch)
            with pytest.raises(NewtritonError, match="load_state_dict"):
                optimizer.load_state_dict(foreign.state_dict())
    for nothing in ({}, None, [], {"optimizer": {}, "rejected": 0}):
        with pytest.raises(NewtritonError, match="load_state_dict"):
            optimizer.load_state_dict(nothing)
    if name not in DELEGATED:
        assert_identical(optimizer.state_dict(), before)
