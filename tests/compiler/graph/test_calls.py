"""A name that is no argument gets one error, with the arguments there are and the nearest one."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

import newtriton as nt
from newtriton.compiler.graph.calls import HINTS, check_call, checked, names_of
from newtriton.compiler.graph.errors import meant

FUNCTIONS = [
    nt.fit, nt.evaluate, nt.compile, nt.from_torch, nt.load, nt.available, nt.digits, nt.split,
    nt.curves, nt.from_dataset, nt.spectrum, nt.trace, nt.diagonal, nt.density, nt.alignment,
    nt.layer_errors, nt.plot_histories,
]  # fmt: skip
CLASSES = [
    nt.Batches, nt.GrowingBatches, nt.Lazy, nt.CropFlip, nt.LinearizedData, nt.History, nt.FITRE,
    nt.KFAC, nt.KFRA, nt.KFLR, nt.EACG, nt.NewtonCG, nt.SecondOrder, nt.PolyakAverage, nt.KFI,
    nt.KroneckerCurvature, nt.MatrixFree, nt.WithPreconditioner, nt.Eigen, nt.BlockCG, nt.MeanCG,
    nt.TruncatedCG, nt.Steihaug, nt.Fixed, nt.QuadraticModel, nt.TrustRegion,
    nt.LevenbergMarquardt,
]  # fmt: skip


@pytest.mark.parametrize("called", [*FUNCTIONS, *CLASSES], ids=lambda called: called.__name__)
def test_an_unknown_name_is_refused_with_the_known_ones(called: Callable[..., Any]) -> None:
    name, *_ = names_of(called)
    with pytest.raises(nt.NewtritonError) as raised:
        called(**{f"{name}_": 1})
    said = f"{called.__name__}() has no option '{name}_': its arguments are "
    assert str(raised.value) == f"{said}{', '.join(names_of(called))}; did you mean '{name}'?"


@pytest.mark.parametrize("called", FUNCTIONS, ids=lambda called: called.__name__)
def test_too_many_arguments_are_refused(called: Callable[..., Any]) -> None:
    with pytest.raises(nt.NewtritonError, match="has too many positional arguments: its arguments"):
        called(*range(40))


@pytest.mark.parametrize(
    ("make", "name", "known"),
    [
        (nt.TorchOptimizer, "momentun", "momentum"),
        (nt.TorchOptimizer, "shedule", "schedule"),
        (nt.Preconditioned, "dampng", "damping"),  # not PyTorch's dampening
        (nt.Preconditioned, "nestorov", "nesterov"),
    ],
)
def test_options_of_an_optimizer_and_of_its_class_are_known(
    make: Callable[..., Any], name: str, known: str
) -> None:
    model = nt.compile(nt.Linear(3), (3,), nt.MSELoss(), device="cpu")
    with pytest.raises(nt.NewtritonError) as raised:
        make(model, torch.optim.SGD, **{name: 1})
    said = f"{make.__name__} with torch.optim.SGD() has no option {name!r}: its arguments are model"
    assert str(raised.value).startswith(said)
    assert str(raised.value).endswith(f"; did you mean {known!r}?")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda model: nt.KFAC(model, weight_decay=0.1),  # type: ignore[call-arg]
            "KFAC() has no option 'weight_decay': it is a part of the loss, whose curvature is "
            "taken: give it to nt.compile, or to nt.from_torch",
        ),
        (
            lambda model: nt.FITRE(model, lr=0.1),  # type: ignore[call-arg]
            "FITRE() has no option 'lr': a step of second order has none",
        ),
        (
            lambda model: nt.MSELoss(reduction="sum"),  # type: ignore[call-arg]
            "MSELoss() has no option 'reduction': a loss is the mean over samples",
        ),
        (
            lambda model: nt.Linear(3, 4, device="cpu"),
            "Linear() has no option 'device': the whole network has one: give it to nt.compile",
        ),
    ],
)
def test_what_other_libraries_have_here_is_said_to_be_elsewhere(
    call: Callable[[Any], Any], said: str
) -> None:
    model = nt.compile(nt.Linear(3), (3,), nt.MSELoss(), device="cpu")
    with pytest.raises(nt.NewtritonError) as raised:
        call(model)
    assert str(raised.value).startswith(said)


def test_hints_name_what_there_is() -> None:
    for hint in HINTS.values():
        assert all(hasattr(nt, name) for name in re.findall(r"nt\.(\w+)", hint))


def test_a_checked_function_is_what_it_was() -> None:
    @checked
    def double(number: int, *, times: int = 2) -> int:
        """Returns it."""
        return number * times

    assert (double(3), double(3, times=4), double.__doc__) == (6, 12, "Returns it.")
    assert names_of(double) == ["number", "times"]
    assert meant("nothing like it", ["times"]) == ""


def test_arguments_of_any_name_are_left_to_what_takes_them() -> None:
    def takes_all(*args: int, **options: int) -> None:
        pass

    check_call(takes_all, (1, 2), {"anything": 3})
