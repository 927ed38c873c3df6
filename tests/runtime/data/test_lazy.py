"""Lazy inputs stand where a tensor of inputs does, in training and when it is resumed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import newtriton as nt
from newtriton.runtime.training.runs import RunFolder

from .writers import write_classes, write_tiny

ROWS = torch.arange(120, dtype=torch.uint8).reshape(30, 1, 2, 2)


def halved(rows: torch.Tensor = ROWS, **options: object) -> nt.Lazy:
    return nt.Lazy(rows, [lambda x: x.float() / 2], **options)


@pytest.mark.parametrize(
    "index", [slice(3, 9), slice(None), torch.tensor([4, 0, 4]), slice(0, 0)], ids=str
)
def test_samples_are_made_ready_when_they_are_asked_for(index: slice | torch.Tensor) -> None:
    assert torch.equal(halved()[index], ROWS[index].float() / 2)


def test_it_has_the_shape_dtype_and_length_of_what_it_gives() -> None:
    x = nt.Lazy(ROWS, [lambda rows: rows.double().flatten(1)])
    assert (x.shape, x.dtype, len(x)) == (torch.Size((30, 4)), torch.float64, 30)
    assert torch.equal(x.in_memory(), ROWS.double().flatten(1))
    assert torch.equal(x[-1], ROWS[29].double().flatten())
    with pytest.raises(IndexError):
        x[30]
    assert x[0].shape == (4,)


def test_it_is_no_batch() -> None:
    model = nt.compile(nt.models.mlp((4,), 3), (1, 2, 2), nt.CrossEntropyLoss())
    test = nt.Samples(halved(), torch.zeros(30).long())
    with pytest.raises(nt.NewtritonError, match=r"no batch: pass Batches\(\*samples, batch_size"):
        nt.evaluate(model, [test])


def test_a_subset_and_a_split_stay_lazy() -> None:
    x = halved()
    some = x.subset(torch.tensor([5, 2, 7])).subset(torch.tensor([2, 0]))
    assert torch.equal(some[:], ROWS[[7, 5]].float() / 2)
    kept, held_out = nt.split(nt.Samples(x, torch.arange(30) % 3), 0.3)
    assert isinstance(kept.x, nt.Lazy)
    assert sorted(
        (2 * kept.x[:])[:, 0, 0, 0].tolist() + (2 * held_out.x[:])[:, 0, 0, 0].tolist()
    ) == [4 * i for i in range(30)]


@pytest.mark.parametrize("growing", [False, True])
def test_batches_are_those_of_the_tensor(growing: bool) -> None:
    y = torch.arange(30)

    def batches(x: nt.Lazy | torch.Tensor) -> nt.Batches:
        return nt.GrowingBatches(x, y, 4) if growing else nt.Batches(x, y, 7, seed=3)

    lazy, dense = batches(halved()), batches(ROWS.float() / 2)
    assert len(lazy) == len(dense)
    for _ in range(2):
        for one, other in zip(lazy, dense, strict=True):
            assert torch.equal(one.x, other.x)
            assert torch.equal(one.y, other.y)


class Run:
    """Training with augmented images, the way `newtriton train` does it."""

    def __init__(self, folder: Path, train: nt.Samples, growing: bool) -> None:
        net = nt.Sequential(nt.Flatten(), nt.Linear(3))
        shape = tuple(train.x.shape[1:])
        self.model = nt.compile(net, shape, nt.CrossEntropyLoss(), seed=0)
        self.optimizer = nt.FITRE(self.model)
        self.batches = (
            nt.GrowingBatches(*train, first=3) if growing else nt.Batches(*train, batch_size=4)
        )
        self.folder = RunFolder(folder, {})

    def train(self, resume: bool, epochs: int) -> dict[str, torch.Tensor]:
        parts = self.model, self.optimizer, self.batches
        history = self.folder.load(*parts).history if resume else self.folder.begin()
        nt.fit(*parts, epochs=epochs, progress=False, history=history)
        self.folder.save(*parts, history)
        return {name: value.clone() for name, value in self.model.state_dict().items()}


@pytest.mark.parametrize("growing", [False, True])
def test_a_resumed_run_is_the_same_bit_for_bit(growing: bool, tmp_path: Path) -> None:
    write_tiny(tmp_path)
    train, test = nt.load("tiny-imagenet", tmp_path, preprocessing=["standard", "fitre"])
    assert isinstance(train.x, nt.Lazy)
    whole = Run(tmp_path / "whole", train, growing).train(False, 3)
    Run(tmp_path / "parts", train, growing).train(False, 1)
    resumed = Run(tmp_path / "parts", train, growing)
    assert all(map(torch.equal, whole.values(), resumed.train(True, 2).values()))
    assert 0 <= nt.evaluate(resumed.model, nt.Batches(*test, 2, shuffle=False))[1] <= 1


def test_a_folder_of_classes_is_lazy(tmp_path: Path) -> None:
    write_classes(tmp_path)
    train, test = nt.load("imagenet-10", tmp_path, preprocessing="min-max")
    assert isinstance(train.x, nt.Lazy)
    assert isinstance(test.x, nt.Lazy)
    assert tuple(train.x.shape) == (4, 3, 224, 224)
    assert (float(train.x[:].min()), float(train.x[:].max())) == (0.0, 1.0)


def test_what_is_on_meta_has_no_samples() -> None:
    with pytest.raises(nt.NewtritonError, match=r"rows are .*, on meta: give a tensor of samples"):
        nt.Lazy(ROWS.to("meta"))
    with pytest.raises(nt.NewtritonError, match=r"index is .*: give the numbers of samples"):
        halved().subset(torch.tensor([1], device="meta"))
