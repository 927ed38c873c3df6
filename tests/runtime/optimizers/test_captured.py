"""The presets train captured modules of all kinds from their defaults."""

from __future__ import annotations

import pytest
import torch

import newtriton as nt

from ...modules import NETWORKS, criterion_of, labels_of


@pytest.mark.parametrize("name", NETWORKS)
def test_presets_train_a_captured_module(name: str) -> None:
    torch.manual_seed(0)
    case = NETWORKS[name]
    x = case.batch(16)
    module = case.make().double()
    with torch.no_grad():
        z = module.train()(x)
    z = z["logits"] if isinstance(z, dict) else z
    y = labels_of(z)
    model = nt.from_torch(module, x, criterion_of(z))
    first = state = model.objective(x, y)
    for preset in (nt.FITRE, nt.KFAC):
        optimizer = preset(model)
        reports = [optimizer.step(x, y) for _ in range(4)]
        assert any(report.accepted for report in reports)
        before, state = state, model.objective(x, y)
        assert state < before
    assert state < 0.9 * first
