"""h: the mean loss plus weight decay, by what counts."""

from __future__ import annotations

import pytest
import torch

import newtriton as nt
from newtriton.runtime.model.objective import counted, decay_, total


def decayed() -> nt.Model:
    net = nt.Sequential(nt.Linear(4), nt.Tanh(), nt.Linear(3))
    return nt.compile(net, (5,), nt.CrossEntropyLoss(), backend="aten", weight_decay=0.1)


def test_weight_decay_is_added_to_values_and_vectors() -> None:
    model = decayed()
    decay = 0.05 * float(model.params.double().square().sum())
    assert total(model, torch.tensor([1.0, 3.0])) == pytest.approx(2.0 + decay, rel=1e-12)
    vector = torch.zeros_like(model.params)
    assert decay_(model, vector, model.params) is vector
    assert torch.equal(vector, 0.1 * model.params)


def test_frozen_parameters_do_not_decay() -> None:
    model = decayed()
    model.freeze("0")
    model.layout.views(model.params)["0.weight"].fill_(100.0)
    rest = sum(float(model.params[run].double().square().sum()) for run in model.trained)
    assert total(model, torch.zeros(2)) == pytest.approx(0.05 * rest, rel=1e-12)
    vector = decay_(model, torch.zeros_like(model.params), model.params)
    assert not model.unflatten(vector)["0.weight"].any()


def test_labels_that_are_ignored_do_not_count() -> None:
    loss = nt.CrossEntropyLoss(ignore_index=1)
    model = nt.compile(nt.Linear(3), (5,), loss, backend="aten")
    assert float(counted(model, torch.tensor([0, -1, 2]), 3)) == 2.0
    assert counted(decayed(), torch.tensor([0, 1, 2]), 3) == 3.0
