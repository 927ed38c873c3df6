"""Dampings go up with refusals, ever faster, and come back."""

from __future__ import annotations

import math

import pytest
import torch

import newtriton as nt
from newtriton.runtime.rules.refusals import LEAST, MOST, grown, shrunk


def test_a_damping_grows_from_zero_and_ends_below_infinity() -> None:
    damping, raised = 0.0, 1.0
    for refused in range(1, 60):
        damping, raised = grown(damping, raised, 1.3, refused)
        assert LEAST < damping <= MOST * 1.001
    assert raised == pytest.approx(MOST / LEAST)
    for _ in range(12):
        damping, raised = shrunk(damping, raised, 1.3)
    assert raised == 1.0
    assert damping == pytest.approx(LEAST)


def test_growth_reaches_what_is_asked_for() -> None:
    assert grown(0.5, 1.0, 2.0, 1, least=3.0) == (pytest.approx(3.0), pytest.approx(6.0))
    assert grown(0.5, 1.0, 2.0, 1, least=0.7) == (1.0, 2.0)


@pytest.mark.parametrize("make", [nt.KFAC, nt.KFRA, nt.KFLR])
@pytest.mark.parametrize("scale", [1e3, 1e5])
def test_a_handful_of_refusals_leads_from_large_logits_to_a_step(make, scale: float) -> None:
    net = nt.Sequential(nt.Linear(32), nt.ReLU(), nt.Linear(32), nt.ReLU(), nt.Linear(5))
    model = nt.compile(net, (20,), nt.CrossEntropyLoss(), backend="aten", device="cpu")
    dict(model.named_parameters())["4.weight"].mul_(scale)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(64, 20, generator=generator), torch.arange(64) % 5
    optimizer, reports = make(model), []
    while not (reports and reports[-1].accepted):
        reports.append(optimizer.step(x, y))
        assert len(reports) <= 8
    assert not math.isclose(reports[-1].new_loss, reports[0].loss)
