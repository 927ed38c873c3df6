"""First values: PyTorch's from the same seed, and the distributions of every rule."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import newtriton as nt
from newtriton.compiler.language.initial import INITIAL
from newtriton.compiler.language.network import Parameter
from newtriton.runtime.inputs.initialise import initialise


def test_a_seed_gives_what_torch_would_draw() -> None:
    torch.manual_seed(7)
    module = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 16, 2))
    net = nt.Sequential(nt.Conv2d(3, 3), nt.ReLU(), nt.Flatten(), nt.Linear(2))
    model = nt.compile(net, (1, 6, 6), nt.CrossEntropyLoss(), seed=7)
    for name, tensor in module.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_so_do_layers_of_other_kinds() -> None:
    torch.manual_seed(7)
    module = nn.Sequential(
        *(nn.Embedding(9, 4), nn.Conv1d(5, 3, 2, groups=1), nn.BatchNorm1d(3), nn.PReLU(3)),
        *(nn.ConvTranspose1d(3, 2, 3), nn.Flatten(), nn.LayerNorm(10), nn.Linear(10, 2)),
    )
    net = nt.Sequential(
        *(nt.Embedding(9, 4), nt.Conv1d(3, 2), nt.BatchNorm1d(), nt.PReLU(3)),
        *(nt.ConvTranspose1d(2, 3), nt.Flatten(), nt.LayerNorm(), nt.Linear(2)),
    )
    model = nt.compile(net, nt.InputSpec((5,), "int"), nt.MSELoss(), seed=7)
    for name, tensor in module.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    ("init", "variance"), [("kaiming", 2 / 300), ("xavier", 2 / 500), ("sparse", 15 / 300)]
)
def test_other_initialisations(init: str, variance: float) -> None:
    model = nt.compile(nt.Linear(200, init=init), (300,), nt.MSELoss(), seed=0)
    weight, bias = model.state_dict()["weight"], model.state_dict()["bias"]
    assert weight.var().item() == pytest.approx(variance, rel=0.05)
    assert not bias.any()
    if init == "sparse":
        assert set((weight != 0).sum(1).tolist()) == {15}


@pytest.mark.parametrize("rule", INITIAL)
def test_every_rule_fills_a_parameter(rule: str) -> None:
    values = torch.full((30, 40), torch.nan)
    parameter = Parameter("w", (30, 40), rule, 40, 30, (0, 1))
    initialise(parameter, values, torch.Generator().manual_seed(0))
    assert torch.isfinite(values).all()
    assert (values.unique().numel() == 1) == (rule in ("ones", "zeros"))
