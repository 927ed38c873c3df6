"""Options that are unknown or impossible: one error that names the value and the way out."""

from __future__ import annotations

import math
import re
from collections import UserDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import newtriton as nt
from newtriton.compiler.graph.options import (
    check_count,
    check_counts,
    check_flag,
    check_integer,
    check_kind,
    check_list,
    check_mapping,
    check_names,
    check_number,
    check_option,
)

F64 = torch.float64


def compiled(criterion: Any = None, **options: Any) -> nt.Model:
    net = nt.Sequential(
        nt.Conv2d(3, 3, padding=1), nt.BatchNorm2d(), nt.SiLU(), nt.Flatten(), nt.Linear(3)
    )
    loss = nt.CrossEntropyLoss() if criterion is None else criterion
    return nt.compile(net, (2, 4, 4), loss, dtype=F64, **options)


OPTIONS: list[tuple[Callable[[], object], str]] = [
    (lambda: compiled(backend="cuda"), "backend is 'cuda': one of 'auto', 'aten', 'triton'"),
    (lambda: compiled(precision="fp16"), "precision is 'fp16': one of 'ieee', 'tf32x3'"),
    (lambda: compiled(backend="aten", precision="tf32"), "precision 'tf32' needs the triton"),
    (lambda: compiled(device="gpu"), "device is 'gpu': Expected one of cpu, cuda"),
    (lambda: compiled(device="cuda:99"), "device is 'cuda:99'"),
    (lambda: compiled(weight_decay=-1.0), "weight_decay is -1.0: give a number ≥ 0"),
    (lambda: compiled(weight_decay=math.nan), "weight_decay is nan"),
    (lambda: compiled(nn.CrossEntropyLoss()), "loss is CrossEntropyLoss()"),
    (
        lambda: nt.compile(nt.Linear(2), (3,), nt.MSELoss(), dtype=torch.float16),
        "dtype is torch.float16: one of torch.float32, torch.float64",
    ),
    (lambda: nt.compile(nt.Linear(2), (3, 4.5), nt.MSELoss()), "input_shape is (3, 4.5)"),
    (lambda: nt.compile(nt.Linear(2), (0,), nt.MSELoss()), "input_shape is (0,)"),
    (lambda: nt.Linear(2, init="he"), "init is 'he': one of default, kaiming, xavier, sparse"),
    (lambda: nt.Conv2d(2, 3, init="he"), "init is 'he'"),
    (lambda: nt.Conv2d(2, 3, padding="full"), "padding is 'full'"),
    (lambda: nt.Conv2d(2, 3, stride=0), "stride is 0"),
    (lambda: nt.Linear(0), "out_features is 0"),
    (lambda: nt.GELU("fast"), "approximate is 'fast'"),
    (lambda: nt.BatchNorm2d(eps=0.0), "eps is 0.0"),
    (nt.Add, "Add() has no branches"),
    (lambda: nt.Linear(1 << 40), "out_features is 1099511627776: give one up to 2147483647"),
    (lambda: nt.Conv1d(2, 1 << 40), "kernel_size is 1099511627776: give an integer ≥ 1, below 2³¹"),
    (lambda: nt.models.vgg11(batch_norm=1), "batch_norm is 1: give True or False"),  # type: ignore[arg-type]
    (lambda: nt.models.mlp(8), "hidden is 8: give a tuple"),  # type: ignore[arg-type]
    (lambda: nt.InputSpec.of(torch.tensor(1.0)), "the inputs are a number"),
    (lambda: nt.InputSpec.of([1.0]), "the inputs are list: give a torch.Tensor"),  # type: ignore[arg-type]
    (lambda: nt.CrossEntropyLoss(ignore_index=1 << 70), "ignore_index is"),
    (lambda: nt.Criterion(lambda z, y: z * y, root=np.zeros(2)), "root is"),  # type: ignore[arg-type]
    (lambda: compiled(nt.SigmoidMarginLoss(delta=0.0)), "does not depend on the network's outputs"),
    (lambda: compiled(nt.Criterion(lambda z, y: y)), "does not depend on the network's outputs"),
    (lambda: nt.Criterion(lambda z, y: 1 / 0), "function raised ZeroDivisionError"),
    (lambda: nt.Criterion(lambda z, y: z * y, values=3), "values are 3: give the labels"),  # type: ignore[arg-type]
    (lambda: compiled(nt.MixtureLoss(np.zeros(2))), "root is"),  # type: ignore[arg-type]
    (lambda: compiled(device="meta"), "device is 'meta', where nothing is computed"),
    (lambda: compiled(device=3), "device is 3: give e.g."),
    (lambda: compiled(device="mps"), "device is 'mps'"),
    (lambda: compiled(device="cpu\n"), "device is 'cpu\\n'"),
    (lambda: nt.compile(nt.Linear(2), ((3,), (3,)), nt.MSELoss()), "it takes one input"),
    (lambda: nt.compile(nt.PReLU(init=1e300), (3,), nt.MSELoss()), "a parameter starts at 1e+300"),
    (
        lambda: nt.compile(nt.AvgPool1d(100, 2, ceil_mode=True), (3, 6), nt.MSELoss()),
        "a window of 100 does not fit 6 elements",
    ),
    (
        lambda: nt.compile(nt.ReplicationPad1d(1 << 20), (3, 6), nt.MSELoss()),
        "replicate padding (1048576, 1048576) is more than 4096",
    ),
    (
        lambda: nt.compile(nt.AdaptiveMaxPool1d(1 << 20), (3, 6), nt.MSELoss()),
        "it makes 1048576 windows of 6 elements",
    ),
    (lambda: nt.FITRE(compiled(), case="both"), "case is 'both': one of"),
    (lambda: nt.FITRE(compiled(), damping=-1.0), "damping is -1.0"),
    (lambda: nt.FITRE(compiled(), max_radius=0.0), "radii are"),
    (lambda: nt.FITRE(compiled(), momentum=1.0), "momentum is 1.0"),
    (lambda: nt.TorchOptimizer(compiled(), torch.optim.SGD, rate=1), "has no option 'rate'"),
]


@pytest.mark.parametrize(("make", "message"), OPTIONS, ids=[message for _, message in OPTIONS])
def test_unknown_options_are_named_with_the_known_ones(
    make: Callable[[], object], message: str
) -> None:
    with pytest.raises(nt.NewtritonError, match=re.escape(message)):
        make()


QUOTED_LONG = "100000000000000000...0000000000000000000"
CHECKS: list[tuple[Callable[[], object], str]] = [
    (lambda: check_option("mode", "x", ("a", "b")), "mode is 'x': one of 'a', 'b'"),
    (lambda: check_option("mode", None, ("a", "b")), "mode is None: one of 'a', 'b'"),
    (lambda: check_number("rate", True), "rate is True: give a number that is finite"),
    (lambda: check_number("rate", math.inf), "rate is inf: give a number that is finite"),
    (lambda: check_number("rate", -1, 0.0), "rate is -1: give a number ≥ 0"),
    (lambda: check_number("rate", 0, above=0.0), "rate is 0: give a number > 0"),
    (lambda: check_number("rate", 1, 0.0, below=1.0), "rate is 1: give a number ≥ 0 and < 1"),
    (lambda: check_count("size", 0), "size is 0: give a positive integer"),
    (lambda: check_count("size", 1, 2), "size is 1: give an integer ≥ 2"),
    (lambda: check_count("size", True), "size is True: give a positive integer"),
    (lambda: check_flag("whole", 1), "whole is 1: give True or False"),
    (
        lambda: check_number("rate", 10**400),
        "rate is " + QUOTED_LONG + ": give a number that is finite",
    ),
    (lambda: check_count("size", 1 << 70), f"size is {1 << 70}: give one up to {(1 << 63) - 1}"),
    (lambda: check_integer("axis", 1.0), f"axis is 1.0: give an integer up to {(1 << 63) - 1}"),
    (lambda: check_integer("axis", -4, 3), "axis is -4: give an integer up to 3"),
    (
        lambda: check_counts("hidden", 3, "(4,)"),
        "hidden is 3: give a tuple of positive integers, e.g. (4,)",
    ),
    (
        lambda: check_counts("hidden", (), "(4,)"),
        "hidden is (): give a tuple of positive integers, e.g. (4,)",
    ),
    (
        lambda: check_counts("hidden", (3, True), "(4,)"),
        "hidden[1] is True: give a positive integer",
    ),
    (lambda: check_kind("made", 3, str, "a text"), "made is 3: give a text"),
    (lambda: check_names("layers", "0"), "layers is '0': give a list of names"),
    (lambda: check_names("layers", [0]), "layers is [0]: give a list of names"),
    (lambda: check_mapping("parts", [3]), "parts are [3]: give a dictionary by name"),
    (lambda: check_mapping("parts", {3: 4}), "parts have a key 3: give strings"),
]


@pytest.mark.parametrize(("check", "message"), CHECKS, ids=[message for _, message in CHECKS])
def test_a_check_says_what_it_got_and_what_it_takes(
    check: Callable[[], object], message: str
) -> None:
    with pytest.raises(nt.NewtritonError, match=re.escape(message) + "$"):
        check()


def test_a_check_gives_the_value_back() -> None:
    assert check_number("rate", 1, 0.0, 1.0) == 1.0
    assert check_count("size", 3) == 3
    assert check_flag("whole", False) is False
    assert check_counts("hidden", [np.int64(3), 4], "(4,)") == (3, 4)
    assert check_names("layers", {"0"}) == ("0",)
    assert check_mapping("parts", UserDict({"a": 1})) == {"a": 1}
    assert check_kind("made", "x", str, "a text") == "x"


class Unreadable(UserDict):
    """A dictionary that cannot be read."""

    def __getitem__(self, key: object) -> Any:
        raise RuntimeError("not today")


def test_a_dictionary_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(nt.NewtritonError, match=r"parts are .*, which cannot be read: not today"):
        check_mapping("parts", Unreadable({"a": 1}))


def test_scalars_of_numpy_are_numbers():
    assert check_count("k", np.int64(3)) == 3 and type(check_count("k", np.int64(3))) is int
    assert check_number("x", np.float32(0.5)) == 0.5
    with pytest.raises(nt.NewtritonError, match="k is"):
        check_count("k", np.float64(3.0))


class Unending:
    """What cannot be passed through."""

    def __iter__(self) -> Any:
        raise RuntimeError("not today")


def test_what_cannot_be_passed_through_is_no_list() -> None:
    assert check_list("parts", (1, 2), "a list") == [1, 2]
    with pytest.raises(nt.NewtritonError, match=r"parts is .*, which cannot be read: not today"):
        check_list("parts", Unending(), "a list")
    with pytest.raises(nt.NewtritonError, match="parts is 3: give a list"):
        check_list("parts", 3, "a list")
