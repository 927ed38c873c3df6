"""Nothing that lives grows with the steps: counts of tensors, bytes and objects."""

import gc
import weakref
from itertools import pairwise

import pytest
import torch

import newtriton as nt
from newtriton.runtime.recent import Recent

from .endurance import Living, trained
from .failures import OPTIMIZERS

MARKS = (40, 80, 120, 160)
SPARE = 20  # objects of the counts themselves, and of what is there after some steps only


def leaked(found: list[Living]) -> dict[str, int]:
    """What has grown in each interval; what is made once grows in one of them alone."""
    pairs = [*pairwise(found)]
    least = {
        name: min(getattr(after, name) - getattr(before, name) for before, after in pairs)
        for name in Living._fields
    }
    least["objects"] -= SPARE
    return {name: growth for name, growth in least.items() if growth > 0}


@pytest.mark.parametrize("kind", ["fitre noise", "newton-cg"])
def test_nothing_grows_with_the_steps(kind: str):
    assert not leaked(trained(kind, MARKS[-1], MARKS))


def test_nothing_grows_with_sizes_of_batches(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Recent.__init__, "__defaults__", (4,))
    marks = (200, 260, 320)  # what is made every twentieth step has seen as many sizes by then
    assert not leaked(trained("kfac", marks[-1], marks, (1, 64)))


@pytest.mark.parametrize("kind", ["fitre", "newton-cg", "preconditioned"])
def test_models_and_optimizers_that_are_dropped_are_freed(kind: str):
    def used() -> list[weakref.ref]:
        net = nt.Sequential(nt.Linear(4), nt.Tanh(), nt.Linear(3))
        model = nt.compile(net, (5,), nt.CrossEntropyLoss(), device="cpu")
        optimizer = OPTIMIZERS[kind](model)
        batch = torch.ones(6, 5), torch.arange(6) % 3
        for _ in range(2):
            _ = optimizer.step([batch]) if optimizer.takes_data else optimizer.step(*batch)
        kept = model, model.params, optimizer, model.programs[True], model.programs[True].linearize
        return [*map(weakref.ref, kept)]

    dropped = used()
    gc.collect()
    assert [ref() for ref in dropped] == [None] * len(dropped)
