"""All passes of a step see the same batches, or an error says that they do not."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler, TensorDataset

import newtriton as nt
from newtriton.runtime.optimizers.passes import Passes, undisturbed

X = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(40) % 3
SAMPLES = TensorDataset(X, Y)
Pair = tuple[Tensor, Tensor]


class Augmented(Dataset):
    """Inputs with noise of the global generators."""

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, i: int) -> Pair:
        noise = random.random() + np.random.rand() + torch.rand(())
        return X[i] + noise, Y[i]


class Untold:
    """Batches whose order comes from a generator that nobody knows."""

    def __init__(self) -> None:
        self.own = np.random.default_rng(0)

    def __iter__(self) -> Iterator[Pair]:
        for rows in torch.from_numpy(self.own.permutation(40)).split(10):
            yield X[rows], Y[rows]


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(5)


DATA = {
    "Batches": lambda: nt.Batches(X, Y, 16),
    "loader": lambda: DataLoader(SAMPLES, 16, shuffle=True),
    "loader with a generator": lambda: DataLoader(SAMPLES, 16, shuffle=True, generator=seeded()),
    "sampler with a generator": lambda: DataLoader(
        SAMPLES, 16, sampler=RandomSampler(SAMPLES, generator=seeded())
    ),
    "augmented": lambda: DataLoader(Augmented(), 16, shuffle=True),
    "list": lambda: [(X[:30], Y[:30]), (X[30:], Y[30:])],
}


def seen(data) -> Tensor:
    return torch.cat([torch.cat([x, y[:, None]], 1) for x, y in data])


@pytest.mark.parametrize("name", DATA)
def test_passes_of_a_step_are_the_same_and_steps_are_not(name: str) -> None:
    data = DATA[name]()
    first, second = Passes(data), Passes(data)
    passes = [seen(first), seen(first)]
    torch.rand(3)
    passes.append(seen(first))
    assert torch.equal(passes[0], passes[1]) and torch.equal(passes[0], passes[2])
    assert torch.equal(seen(second), passes[0]) == (name == "list")


def test_the_order_goes_on_as_after_one_pass() -> None:
    plain, passed = nt.Batches(X, Y, 16), nt.Batches(X, Y, 16)
    seen(plain)
    step = Passes(passed)
    seen(step), seen(step), seen(step)
    assert passed.state_dict() == plain.state_dict()
    assert torch.equal(seen(passed), seen(plain))


@pytest.mark.parametrize(
    "make",
    [nt.NewtonCG, lambda model: nt.TorchOptimizer(model, torch.optim.LBFGS, max_iter=3)],
)
def test_data_that_change_between_passes_are_told_and_nothing_has_changed(make) -> None:
    model = nt.compile(nt.Linear(3), (4,), nt.CrossEntropyLoss(), backend="aten", device="cpu")
    before, optimizer = model.params.clone(), make(model)
    with pytest.raises(nt.NewtritonError, match=r"Untold.*other samples in another pass"):
        optimizer.step(Untold())
    assert torch.equal(model.params, before)


@pytest.mark.parametrize("name", DATA)
def test_newton_cg_makes_the_step_of_the_batches_it_has_seen_first(name: str) -> None:
    def model_of() -> nt.Model:
        return nt.compile(nt.Linear(3), (4,), nt.CrossEntropyLoss(), backend="aten", device="cpu")

    one, other = model_of(), model_of()
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    batches = [*DATA[name]()]
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    report = nt.NewtonCG(one, sample=0.5).step(DATA[name]())
    assert report == nt.NewtonCG(other, sample=0.5).step(batches)
    assert torch.equal(one.params, other.params)


def test_batches_of_other_lengths_are_told_as_they_come() -> None:
    lengths = iter([(6, 4), (6, 2), (6, 4, 2)])

    class Changing:
        def __iter__(self):
            return iter([(X[:n], Y[:n]) for n in next(lengths)])

    data = Passes(Changing())
    assert [len(y) for _, y in data] == [6, 4]
    for good in (1, 2):
        passed = iter(data)
        for _ in range(good):
            next(passed)
        with pytest.raises(nt.NewtritonError, match="other samples in another pass"):
            next(passed)


def test_data_with_nan_are_the_same_data_in_each_pass() -> None:
    x = X.clone()
    x[3, 1] = math.nan
    model = nt.compile(nt.Linear(3), (4,), nt.CrossEntropyLoss(), backend="aten", device="cpu")
    with pytest.raises(nt.NewtritonError, match="inputs have NaN"):
        nt.NewtonCG(model).step(nt.Batches(x, Y, 16))


@pytest.mark.parametrize("kind", ["batches", "loader"])
def test_data_have_their_own_state_back_even_after_an_error(kind: str) -> None:
    loader = DataLoader(SAMPLES, 7, shuffle=True, generator=torch.Generator())
    data = loader if kind == "loader" else nt.Batches(X, Y, 7, seed=1)
    with pytest.raises(ValueError, match="midway"), undisturbed(data):
        for _ in data:
            raise ValueError("midway")
    with undisturbed(data):
        inside = [y.tolist() for _, y in data]
    assert [y.tolist() for _, y in data] == inside
    assert [y.tolist() for _, y in data] != inside
