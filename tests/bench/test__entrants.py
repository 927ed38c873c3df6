"""The battery's first-order methods step on the model's own memory, as their authors say."""

from __future__ import annotations

import pytest
import torch

import newtriton as nt
from newtriton.bench._entrants import ENTRANTS, FirstOrder, Makes, adam, muon, sgd, shampoo, soap
from tests.tolerances import assert_close


def problem() -> tuple[nt.Model, torch.Tensor, torch.Tensor]:
    net = nt.Sequential(
        nt.Conv2d(4, 3, padding=1), nt.BatchNorm2d(), nt.SiLU(), nt.Flatten(),
        nt.Linear(6), nt.Tanh(), nt.Linear(3),
    )  # fmt: skip
    model = nt.compile(net, (2, 4, 4), nt.CrossEntropyLoss(), device="cpu", dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(12, 2, 4, 4, generator=generator, dtype=torch.float64)
    return model, x, torch.arange(12) % 3


@pytest.mark.parametrize("make", [sgd(0.1), adam(0.01), muon(0.01)])
def test_a_step_lowers_the_loss_and_moves_running_statistics(make: Makes) -> None:
    model, x, y = problem()
    before = model.objective(x, y)
    optimizer = make(model)
    for _ in range(5):
        optimizer.step(x, y)
    assert model.objective(x, y) < before
    assert int(model.buffers["1.num_batches_tracked"]) == 5


@pytest.mark.parametrize("make", [soap(0.01), shampoo(0.01, 3), shampoo(0.1, 1)])
def test_others_lower_the_loss_beyond_their_first_basis(make: Makes) -> None:
    model, x, y = problem()
    before = model.objective(x, y)
    optimizer = make(model)
    for _ in range(25):
        optimizer.step(x, y)
    assert model.objective(x, y) < before


@pytest.mark.parametrize("flat", [True, False])
def test_adam_is_the_public_one_on_flat_and_on_matrix_shaped_parameters(flat: bool) -> None:
    model, x, y = problem()
    own = FirstOrder(model, lambda ps: [torch.optim.Adam(ps, lr=0.01)], flat)
    other, _, _ = problem()
    public = nt.TorchOptimizer(other, torch.optim.Adam, lr=0.01)
    for _ in range(4):
        own.step(x, y)
        public.step(x, y)
    assert_close(model.params, other.params)


def test_a_convolution_is_a_matrix_and_the_last_one_is_no_hidden_one() -> None:
    model, _, _ = problem()
    optimizer = muon(0.01)(model)
    assert isinstance(optimizer, FirstOrder)
    matrices, rest = (o.param_groups[0]["params"] for o in optimizer.optimizers)
    assert [tuple(p.shape) for p in matrices] == [(4, 18), (6, 64)]
    assert [tuple(p.shape) for p in rest] == [(4,), (4,), (4,), (6,), (3, 6), (3,)]
    assert sum(p.numel() for p in (*matrices, *rest)) == model.params.numel()


def test_a_linear_model_leaves_everything_to_adam() -> None:
    model = nt.compile(nt.Linear(2), (3,), nt.MSELoss(), device="cpu")
    optimizer = muon(0.01)(model)
    assert isinstance(optimizer, FirstOrder) and len(optimizer.optimizers) == 1


def test_presets_are_at_their_defaults() -> None:
    presets = [e for e in ENTRANTS.values() if list(e.settings) == ["defaults"]]
    made = [entrant.settings["defaults"] for entrant in presets]
    assert made == [nt.FITRE, nt.KFAC, nt.KFRA, nt.KFLR, nt.EACG, nt.NewtonCG]
