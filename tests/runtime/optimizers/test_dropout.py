"""Steps with dropout: trial losses see the step's masks, runs go on bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import newtriton as nt
from newtriton.runtime.optimizers.sampling import Sampled, mean_gradient, mean_objective
from newtriton.runtime.training.runs import RunFolder
from tests.runtime.transfers import counted

F64 = torch.float64

OPTIMIZERS: dict[str, Callable[[nt.Model], Any]] = {
    "FITRE": nt.FITRE,
    "line search": nt.NewtonCG,
    "SGD": lambda model: nt.TorchOptimizer(model, torch.optim.SGD, lr=0.1, momentum=0.9),
    "L-BFGS": lambda model: nt.TorchOptimizer(model, torch.optim.LBFGS, max_iter=3),
    "preconditioned": lambda model: nt.Preconditioned(model, torch.optim.SGD, lr=0.1),
}
optimizers = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)


def compiled(p: float = 0.5, seed: int = 0) -> nt.Model:
    net = nt.Sequential(nt.Linear(6), nt.Tanh(), nt.Dropout(p), nt.Linear(3))
    return nt.compile(net, (4,), nt.CrossEntropyLoss(), backend="aten", dtype=F64, seed=seed)


def batch(samples: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(samples, 4, generator=generator, dtype=F64)
    return x, torch.randint(0, 3, (samples,), generator=generator)


def halves() -> list[tuple[Tensor, Tensor]]:
    x, y = batch()
    return [(x[:7], y[:7]), (x[7:], y[7:])]


def test_means_over_batches_are_those_of_all_samples_at_once() -> None:
    model, (x, y) = compiled(), batch()
    loss, gradient, _ = mean_gradient(model, halves())
    with model.dropout.kept():
        whole = model.linearize(x, y)
    assert loss == pytest.approx(whole.objective, rel=1e-13)
    assert torch.allclose(gradient, whole.gradient, rtol=1e-12, atol=1e-15)
    assert mean_objective(model, halves()) == pytest.approx(loss, rel=1e-13)


def test_a_sample_of_the_data_keeps_the_seed_of_the_step() -> None:
    model = compiled()
    point = Sampled(model, halves(), 0.5, torch.Generator().manual_seed(0))
    assert mean_objective(model, halves()) == pytest.approx(point.objective, rel=1e-13)


@optimizers
def test_a_step_is_judged_with_its_own_masks(
    make: Callable[[nt.Model], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = compiled()
    optimizer, drawn = make(model), set[int]()
    numbers = model.dropout.__class__.__call__

    def noted(self: Any, *arguments: Any) -> Any:
        drawn.add(self.drawn)
        return numbers(self, *arguments)

    monkeypatch.setattr(model.dropout.__class__, "__call__", noted)
    for step in range(1, 4):
        optimizer.step(*batch())
        assert len(drawn) == step


@optimizers
def test_a_run_goes_on_bit_for_bit(make: Callable[[nt.Model], Any], tmp_path: Path) -> None:
    x, y = batch()
    model, other = compiled(), compiled(seed=5)
    optimizer, resumed = make(model), make(other)
    batches, again = (nt.Batches(x, y, 5, seed=1) for _ in range(2))
    folder = RunFolder(tmp_path / "run", {})
    history = nt.fit(model, optimizer, batches, history=folder.begin(), progress=False)
    folder.save(model, optimizer, batches, history)
    folder.load(other, resumed, again)
    for _ in range(2):
        nt.fit(model, optimizer, batches, progress=False)
        nt.fit(other, resumed, again, progress=False)
        assert torch.equal(model.params, other.params)
    assert model.dropout.state_dict() == other.dropout.state_dict()


def test_without_dropout_no_state_is_kept() -> None:
    assert "dropout" not in nt.FITRE(compiled(0.0)).state_dict()
    state = nt.FITRE(compiled()).state_dict()
    assert state["dropout"].keys() == {"seed", "drawn"}
    state["dropout"]["drawn"] = None
    with pytest.raises(nt.NewtritonError, match=r"dropout\.drawn is None"):
        nt.FITRE(compiled()).load_state_dict(state)


def test_masks_are_made_where_they_are() -> None:
    counts = []
    for p in (0.0, 0.5):
        model = compiled(p)
        x, y = batch()
        with counted() as seen:
            model.linearize(x, y)
            model.objective(x, y)
            model.gradient(x, y)
        counts.append((seen.reads, seen.copies))
    assert counts[0] == counts[1]
