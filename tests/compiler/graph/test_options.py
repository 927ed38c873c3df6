"""Options that are unknown or impossible: one error that names the value and the way out."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import newtriton as nt
from newtriton.compiler.graph.options import check_count, check_flag, check_number, check_option

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
    (lambda: nt.FITRE(compiled(), case="both"), "case is 'both': one of"),
    (lambda: nt.FITRE(compiled(), damping=-1.0), "damping is -1.0"),
    (lambda: nt.FITRE(compiled(), max_radius=0.0), "radii are"),
    (lambda: nt.FITRE(compiled(), momentum=1.0), "momentum is 1.0"),
    (lambda: nt.TorchOptimizer(compiled(), torch.optim.SGD, rate=1), "torch.optim.SGD refuses"),
]


@pytest.mark.parametrize(("make", "message"), OPTIONS, ids=[message for _, message in OPTIONS])
def test_unknown_options_are_named_with_the_known_ones(
    make: Callable[[], object], message: str
) -> None:
    with pytest.raises(nt.NewtritonError, match=re.escape(message)):
        make()


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


def test_scalars_of_numpy_are_numbers():
    assert check_count("k", np.int64(3)) == 3 and type(check_count("k", np.int64(3))) is int
    assert check_number("x", np.float32(0.5)) == 0.5
    with pytest.raises(nt.NewtritonError, match="k is"):
        check_count("k", np.float64(3.0))
