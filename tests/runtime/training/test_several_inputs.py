"""Tuples and dictionaries of tensors pass through batches, samples of them, steps and the loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import newtriton as nt
from newtriton.compiler.graph import ops, scalar
from newtriton.compiler.graph.ir import Node
from newtriton.compiler.language.network import Scope
from newtriton.runtime.optimizers.passes import Passes
from newtriton.runtime.optimizers.sampling import Sampled


class Product:
    """The linear map of x ⊙ counts."""

    def build(self, inputs: Any, scope: Scope) -> Node:
        x, counts = inputs.values() if isinstance(inputs, dict) else inputs
        return scope.build("map", nt.Linear(3), ops.map_(scalar.var(0) * scalar.var(1), x, counts))


FORMS: dict[str, Callable[[Any, Any], Any]] = {
    "tuple": lambda x, counts: (x, counts),
    "dictionary": lambda x, counts: {"x": x, "counts": counts},
}
forms = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


def compiled(form: Callable[[Any, Any], Any]) -> nt.Model:
    shape = form((4,), nt.InputSpec((4,), "int"))
    return nt.compile(Product(), shape, nt.CrossEntropyLoss(), backend="aten")


def parts(samples: int = 20) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(samples, 4, generator=generator)
    counts = torch.randint(1, 4, (samples, 4), generator=generator)
    return x, counts, torch.randint(0, 3, (samples,), generator=generator)


class Pairs(Dataset):
    def __init__(self, form: Callable[[Any, Any], Any]) -> None:
        self.form, self.parts = form, parts()

    def __len__(self) -> int:
        return len(self.parts[2])

    def __getitem__(self, i: int) -> Any:
        x, counts, y = (part[i] for part in self.parts)
        return self.form(x, counts), y


@forms
@pytest.mark.parametrize("kind", ["batches", "growing", "loader", "list", "arrays"])
def test_the_loop_trains_on_them(form: Callable[[Any, Any], Any], kind: str) -> None:
    x, counts, y = parts()
    data: dict[str, Callable[[], Any]] = {
        "batches": lambda: nt.Batches(form(x, counts), y, 8),
        "growing": lambda: nt.GrowingBatches(form(x, counts), y, 5, steps=3),
        "loader": lambda: DataLoader(
            Pairs(form), 8, shuffle=True, generator=torch.Generator().manual_seed(0)
        ),
        "list": lambda: [(form(x.double(), counts.int()), y)],
        "arrays": lambda: [(form(np.asarray(x), np.asarray(counts)), np.asarray(y))],
    }
    model = compiled(form)
    batches = data[kind]()
    history = nt.fit(model, nt.FITRE(model), batches, batches, epochs=4, progress=False)
    scores = [epoch.validation_loss for epoch in history.epochs]
    assert scores[-1] < scores[0] and history.epochs[-1].validation_accuracy > 0.4
    plain = nt.compile(nt.Linear(3), (4,), nt.CrossEntropyLoss(), backend="aten")
    plain.params.copy_(model.params)
    expected = nt.evaluate(plain, [(x * counts, y)])
    assert nt.evaluate(model, data[kind]()) == pytest.approx(expected, rel=1e-5)


@forms
def test_steps_on_all_data_take_samples_of_them(form: Callable[[Any, Any], Any]) -> None:
    x, counts, y = parts()
    model, plain = compiled(form), nt.compile(nt.Linear(3), (4,), nt.CrossEntropyLoss())
    plain.params.copy_(model.params)
    data = [(form(x[i : i + 7], counts[i : i + 7]), y[i : i + 7]) for i in (0, 7, 14)]
    same = [(x[i : i + 7] * counts[i : i + 7], y[i : i + 7]) for i in (0, 7, 14)]
    points = [
        Sampled(m, d, 0.4, torch.Generator().manual_seed(1))
        for m, d in ((model, data), (plain, same))
    ]
    assert points[0].objective == pytest.approx(points[1].objective, rel=1e-6)
    assert torch.allclose(points[0].second.gradient, points[1].second.gradient, atol=1e-6)
    report = nt.NewtonCG(model, sample=0.5).step(nt.Batches(form(x, counts), y, 7))
    assert report.accepted and report.new_loss < report.loss


@forms
def test_batches_split_and_repeat(form: Callable[[Any, Any], Any]) -> None:
    x, counts, y = parts()
    samples = nt.Samples(form(x, counts), y)
    kept, held_out = nt.split(samples, 0.25)
    assert type(kept.x) is type(samples.x) and len(kept.y), len(held_out.y) == (15, 5)
    again = Passes(nt.Batches(*kept, batch_size=4))
    first, second = ([y.tolist() for _, y in again] for _ in range(2))
    assert first == second
    with pytest.raises(nt.NewtritonError, match="19 inputs but 20 labels"):
        nt.Batches(form(x, counts[1:]), y, 4)


@forms
def test_inputs_without_labels_are_no_data(form: Callable[[Any, Any], Any]) -> None:
    model, (x, counts, _) = compiled(form), parts()
    for optimizer in (nt.KFAC(model), nt.TorchOptimizer(model, torch.optim.LBFGS)):
        with pytest.raises(nt.NewtritonError, match="inputs without labels"):
            optimizer.step(form(x, counts))


def test_a_batch_that_is_no_pair_says_what_is() -> None:
    x, counts, y = parts()
    with pytest.raises(nt.NewtritonError, match=r"no pair of tensors \(x, y\), x being"):
        nt.evaluate(compiled(FORMS["tuple"]), [(x, counts, y)])


def test_inputs_are_declared_by_a_batch() -> None:
    x, counts, _ = parts()
    assert nt.InputSpec.of(x) == nt.InputSpec((4,))
    assert nt.InputSpec.of(counts) == nt.InputSpec.of(counts > 1) == nt.InputSpec((4,), "int")
