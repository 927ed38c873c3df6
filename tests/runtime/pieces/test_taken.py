"""Optimizers with `micro_batch=` against those without: steps, reports, passes, memory."""

from __future__ import annotations

import copy
import re
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

import newtriton as nt
from newtriton.runtime.pieces.cut import CutBatch
from newtriton.runtime.pieces.taken import Pieces, taken

from ...tolerances import relative_error
from ..transfers import counted
from .cases import CASES, Case
from .trials import EXACT, OPTIMIZERS, check, trial


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_are_those_of_whole_batches(name: str) -> None:
    check(OPTIMIZERS[name], CASES["images"])


@pytest.mark.parametrize("case", [n for n in CASES if n != "images"])
@pytest.mark.parametrize("name", ["FITRE", "Adam"])
def test_steps_are_those_of_whole_batches_for_every_loss(name: str, case: str) -> None:
    if case == "margin" and name == "FITRE":
        check(lambda m, **k: nt.FITRE(m, factors="kflr", **k), CASES[case], steps=3)
    else:
        check(OPTIMIZERS[name], CASES[case], steps=3)


def test_random_batches_and_pieces(tmp_path: Path) -> None:
    outcomes = [trial(seed, tmp_path) for seed in range(20)]
    assert "the same" in outcomes


@pytest.mark.parametrize("size", [1, 2, 7, 8, 100])
def test_any_size_of_pieces_will_do(size: int) -> None:
    check(nt.FITRE, CASES["ignored"], size=size, steps=3)


def test_data_are_taken_in_pieces_too() -> None:
    case = CASES["images"]
    data = [case.batch(5, seed) for seed in range(3)]
    models = case.model(), case.model()
    for model, options in zip(models, ({}, {"micro_batch": 2}), strict=True):
        optimizer = nt.NewtonCG(model, sample=0.4, **options)
        for _ in range(3):
            optimizer.step(data)
    assert relative_error(models[1].params, models[0].params) < EXACT


def passes_of(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that gets an entry for each pass over the pieces of a batch."""
    passes, original = list[int](), CutBatch.pieces

    def noted(self: CutBatch) -> Any:
        passes.append(self.batch)
        return original(self)

    monkeypatch.setattr(CutBatch, "pieces", noted)
    return passes


PASSES = {
    "FITRE": 3,  # gradient and factors; form; loss at the new point
    "EACG": 2,  # no quadratic model
    "KFAC": 3,
    "KFLR": 3,
    "ekfac": 4,  # second moments in the new basis
    "Adam": 1,
    "Preconditioned": 1,
    "Preconditioned in part": 1,
}


@pytest.mark.parametrize("name", PASSES)
def test_a_step_takes_few_passes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES["weighted"]
    optimizer = OPTIMIZERS[name](case.model(), micro_batch=3)
    batch, passes = case.batch(8), passes_of(monkeypatch)
    for _ in range(4):  # later on γ and the last step on the next batch ask for more forms
        passes.clear()
        optimizer.step(*batch)
        assert len(passes) == PASSES[name]


def test_three_dampings_take_one_pass_for_their_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES["weighted"]
    optimizer = nt.FITRE(case.model(), micro_batch=3)
    passes, counts = passes_of(monkeypatch), list[int]()
    for _ in range(12):
        passes.clear()
        optimizer.step(*case.batch(8))
        counts.append(len(passes))
    assert optimizer.following.last and counts == [3] * 12


def test_conjugate_gradients_take_a_pass_for_each_product(monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES["weighted"]
    optimizer = OPTIMIZERS["ggn"](case.model(), micro_batch=3)
    passes = passes_of(monkeypatch)
    report = optimizer.step(*case.batch(8))
    assert len(passes) == report.cg_iterations + 3


@pytest.mark.parametrize("name", ["FITRE", "ekfac", "ggn", "Adam", "Preconditioned"])
@pytest.mark.parametrize("case", ["images", "ignored"])
def test_a_step_waits_as_often_as_with_a_whole_batch(name: str, case: str) -> None:
    reads = list[int]()
    for options in ({}, {"micro_batch": 3}):
        optimizer = OPTIMIZERS[name](CASES[case].model(), **options)
        optimizer.step(*CASES[case].batch(8))
        with counted() as transfers:
            optimizer.step(*CASES[case].batch(8, seed=1))
        reads.append(transfers.reads.total())
    assert reads[0] == reads[1]


class Peak(TorchDispatchMode):
    """Counts the bytes of tensors that are alive at one time, beyond those before it.

    Attributes:
        most: the most bytes so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self._alive: set[int] = set()
        self._now = self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for x in tree_flatten(found)[0]:
            if isinstance(x, Tensor):
                self._note(x.untyped_storage())
        return found

    def _note(self, storage: torch.UntypedStorage) -> None:
        place, size = storage._cdata, storage.nbytes()
        if place in self._alive:
            return
        self._alive.add(place)
        self._now += size
        self.most = max(self.most, self._now)
        weakref.finalize(storage, self._free, place, size)

    def _free(self, place: int, size: int) -> None:
        self._now -= size
        self._alive.discard(place)


CONVOLUTIONS = Case(
    lambda: nt.Sequential(
        nt.Conv2d(4, 3), nt.Tanh(), nt.Conv2d(4, 3), nt.Tanh(), nt.AvgPool2d(8), nt.Flatten()
    ),
    (1, 12, 12), nt.CrossEntropyLoss(), CASES["images"].labels,
)  # fmt: skip


@pytest.mark.parametrize("name", ["FITRE", "KFLR", "ekfac", "NewtonCG", "ggn", "Adam"])
def test_memory_is_that_of_a_piece(name: str) -> None:
    case = CONVOLUTIONS
    peaks = dict[tuple[int, int | None], int]()
    for samples, size in ((32, None), (32, 4), (4, None)):
        optimizer = OPTIMIZERS[name](case.model(), micro_batch=size)
        batch = case.batch(samples)
        optimizer.step(*batch)
        with Peak() as peak:
            optimizer.step(*batch)
        peaks[samples, size] = peak.most
    inputs = 32 * 12 * 12 * 8  # of which a check has its own
    assert peaks[32, 4] < 1.3 * peaks[4, None] + inputs < peaks[32, None]


def test_what_does_not_fit_whole_fits_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    case, batch = CONVOLUTIONS, CONVOLUTIONS.batch(64)

    def step(size: int | None) -> nt.StepReport:
        return nt.FITRE(case.model(), micro_batch=size).step(*batch)

    expected = step(None)
    monkeypatch.setenv("NEWTRITON_MEMORY", "1e6")
    with pytest.raises(nt.NewtritonError, match="pieces: micro_batch=K") as refused:
        step(None)
    most = int(re.findall(r"at most (\d+) samples", str(refused.value))[0])
    assert step(most).loss == pytest.approx(expected.loss, rel=1e-12)
    with pytest.raises(nt.NewtritonError, match=f"a step on {2 * most} samples needs"):
        step(2 * most)


def test_optimizers_are_copied_with_their_pieces() -> None:
    case = CASES["weighted"]
    optimizer = nt.FITRE(case.model(), micro_batch=3)
    optimizer.step(*case.batch(8))
    copied = copy.deepcopy(optimizer)
    copied.load_state_dict(optimizer.state_dict())
    for each in (optimizer, copied):
        each.step(*case.batch(8, seed=1))
    assert torch.equal(optimizer.model.params, copied.model.params)


def test_what_cannot_be_taken_in_pieces_is_refused() -> None:
    net = nt.Sequential(nt.Linear(4), nt.BatchNorm1d(), nt.Linear(3))
    model = nt.compile(net, (3,), nt.CrossEntropyLoss(), device="cpu")
    for make in (nt.FITRE, OPTIMIZERS["Adam"], OPTIMIZERS["Preconditioned"]):
        with pytest.raises(nt.NewtritonError, match="layer 1 normalises by"):
            make(model, micro_batch=4)
        for size in (0, 1.5, "4"):
            with pytest.raises(nt.NewtritonError, match="micro_batch is"):
                make(CASES["weighted"].model(), micro_batch=size)


def test_an_optimizer_says_how_it_takes_batches() -> None:
    for name in ("FITRE", "Adam"):
        made = OPTIMIZERS[name](CASES["weighted"].model(), micro_batch=3)
        assert "in pieces of 3 samples" in str(made)
        assert "pieces" not in str(OPTIMIZERS[name](CASES["weighted"].model()))


def test_without_a_bound_the_model_takes_batches_itself() -> None:
    model = CASES["weighted"].model()
    assert taken(model, None) is model
    pieces = taken(model, 3)
    assert isinstance(pieces, Pieces)
    x, y = CASES["weighted"].batch(3)
    assert pieces.objective(x, y) == model.objective(x, y)
    assert pieces.count(y) == model.count(y)
    assert torch.equal(pieces.gradient(x, y)[1], model.gradient(x, y)[1])
