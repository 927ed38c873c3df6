"""Curves of training runs."""

from __future__ import annotations

import pytest
import torch

import newtriton as nt
from newtriton.bench.protocol.data import choose
from newtriton.bench.protocol.experiment import Setting
from newtriton.bench.protocol.training import (
    curve,
    curve_by_update,
    first_below,
    least,
    marks,
    most,
)


def trained(optimizer: str, **options: float) -> dict:
    data = choose(Setting("smoke"), "mnist")
    model = nt.compile(nt.models.mlp((8,)), (1, 8, 8), nt.CrossEntropyLoss(), backend="aten")
    made = nt.TorchOptimizer(model, getattr(torch.optim, optimizer), **options)
    batches = nt.Batches(*data.train, 200)
    return curve(model, made, batches, [data.train], [data.test], 2)


def test_a_curve_begins_before_the_first_epoch() -> None:
    row = trained("Adam", lr=0.01)
    assert row["epoch"] == [0, 1, 2]
    assert row["update"] == [0, 8, 16]
    assert row["refused"] == [0, 0, 0]
    assert row["seconds"][0] == 0.0 < row["seconds"][1] < row["seconds"][2]
    assert row["loss"][2] == least(row) < row["loss"][0]
    assert most(row) == max(row["accuracy"])
    assert first_below(row, row["loss"][1]) == 8
    assert first_below(row, 0.0) is None
    assert "fault" not in row


@pytest.mark.parametrize("rate", [1e7, 1e30])
def test_a_run_that_diverges_ends_with_a_fault(rate: float) -> None:
    row = trained("SGD", lr=rate)
    assert "fault" in row
    assert len(row["epoch"]) < 4


def test_a_stand_in_says_what_it_stands_for() -> None:
    data = choose(Setting("smoke"), "cifar10")
    assert data.name == "digits in place of cifar10"
    assert tuple(data.train.x.shape[1:]) == (1, 8, 8)


def by_update(rate: float, at: list[int]) -> dict:
    data = choose(Setting("smoke"), "mnist")
    model = nt.compile(nt.models.mlp((8,)), (1, 8, 8), nt.CrossEntropyLoss(), backend="aten")
    made = nt.TorchOptimizer(model, torch.optim.SGD, lr=rate)
    return curve_by_update(model, made, nt.Batches(*data.train, 200), [data.train], at)


def test_a_curve_by_update_has_an_entry_for_each_mark() -> None:
    row = by_update(0.1, [0, 3, 20])  # beyond an epoch of 8
    assert (row["update"], row["refused"]) == ([0, 3, 20], 0)
    assert row["seconds"][0] == 0.0 < row["seconds"][1] < row["seconds"][2]
    assert row["loss"][2] < row["loss"][0]
    assert "fault" not in row


@pytest.mark.parametrize("rate", [1e9, 1e30])
def test_a_curve_by_update_that_diverges_ends_with_a_fault(rate: float) -> None:
    row = by_update(rate, [0, 1, 20, 40])
    assert "fault" in row
    assert len(row["loss"]) == len(row["update"]) < 4


def test_marks_begin_at_nothing_and_end_at_the_last_update() -> None:
    assert marks(3) == [0, 1, 2, 3]
    found = marks(5000)
    assert (found[:2], found[-1]) == ([0, 1], 5000)
    assert len(found) == len(set(found)) <= 41


def test_data_have_at_most_so_many_samples_and_say_so() -> None:
    data = choose(Setting("smoke"), "cifar10")
    assert data.at_most(None) is data.at_most(2000) is data
    fewer = data.at_most(400)
    assert fewer.name == "400 samples of digits in place of cifar10"
    assert (len(fewer.train.y), len(fewer.test.y)) == (400, 360)
    assert set(fewer.train.y.tolist()) == set(range(10))
