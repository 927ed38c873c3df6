"""Samples of PyTorch's datasets and of those like Hugging Face's: read together, batch by batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import newtriton as nt


class Listed(Dataset[Any]):
    """A list as a dataset, which counts what is read."""

    def __init__(self, items: list[Any]) -> None:
        self.items, self.read = items, list[int]()

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        self.read.append(index)
        return self.items[index]


class Columns(Listed):
    """What Hugging Face's datasets are to a DataLoader: dictionaries, several at once."""

    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [self[index] for index in indices]


X, Y = torch.rand(10, 1, 4, 4), torch.arange(10) % 3


def test_batches_are_those_of_the_tensors() -> None:
    samples = nt.from_dataset(TensorDataset(X, Y))
    assert (tuple(samples.x.shape), samples.x.dtype) == ((10, 1, 4, 4), torch.float32)
    for one, other in zip(
        nt.Batches(*samples, 4, seed=2), nt.Batches(X, Y, 4, seed=2), strict=True
    ):
        assert torch.equal(one.x, other.x)
        assert torch.equal(one.y, other.y)


def test_a_sample_is_read_once_for_inputs_and_label() -> None:
    dataset = Listed([(X[i], int(Y[i])) for i in range(10)])
    batches = nt.Batches(*nt.from_dataset(dataset), 4)
    dataset.read.clear()
    for _ in range(2):
        list(batches)
    assert sorted(dataset.read) == sorted([*range(10)] * 2)


def test_what_is_drawn_at_random_is_drawn_in_each_epoch() -> None:
    class Noisy(Listed):
        def __getitem__(self, index: int) -> Any:
            return torch.rand(3), index

    batches = nt.Batches(*nt.from_dataset(Noisy([0, 1])), 2, shuffle=False)
    (first,), (second,) = list(batches), list(batches)
    assert not torch.equal(first.x, second.x)


def test_images_of_pillow_become_bytes_over_255() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3), np.uint8)
    dataset = Columns([{"image": Image.fromarray(c), "label": i} for i, c in enumerate(colours)])
    x, y = nt.from_dataset(dataset)
    assert torch.equal(x[:], torch.from_numpy(colours).permute(0, 3, 1, 2) / 255)
    assert y[:].tolist() == list(range(6))
    grey = Listed([(Image.fromarray(c[..., 0]), 0) for c in colours])
    assert torch.equal(
        nt.from_dataset(grey).x[:], torch.from_numpy(colours[..., :1]).permute(0, 3, 1, 2) / 255
    )


def test_several_inputs_keep_their_names() -> None:
    dataset = Listed([{"a": torch.ones(2) * i, "b": [i, i], "label": i} for i in range(5)])
    x, y = nt.from_dataset(dataset)
    (batch,) = nt.Batches(x, y, 5, shuffle=False)
    assert batch.x["a"].shape == (5, 2)
    assert batch.x["b"].tolist() == [[i, i] for i in range(5)]
    pairs = Listed([((torch.ones(2), torch.zeros(3)), 0.5)] * 4)
    x, y = nt.from_dataset(pairs)
    assert [tuple(part.shape) for part in x] == [(4, 2), (4, 3)]
    assert y.dtype == torch.float32


def test_a_split_of_a_dataset_has_every_class() -> None:
    kept, held_out = nt.split(nt.from_dataset(TensorDataset(X, Y)), 0.3)
    assert (len(kept.y), sorted(held_out.y[:].tolist())) == (7, [0, 1, 2])


def test_a_dataset_is_trained_on() -> None:
    model = nt.compile(nt.models.mlp((8,), 3), (1, 4, 4), nt.CrossEntropyLoss(), seed=0)
    batches = nt.GrowingBatches(*nt.from_dataset(TensorDataset(X, Y)), first=5)
    history = nt.fit(model, nt.FITRE(model), batches, epochs=3, progress=False)
    assert history.epochs[-1].loss < history.epochs[0].loss


def test_an_iterable_dataset_goes_to_a_loader() -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter(zip(X, Y, strict=True))

    with pytest.raises(nt.NewtritonError, match=r"Stream has no length.*DataLoader"):
        nt.from_dataset(Stream())
    model = nt.compile(nt.models.mlp((8,), 3), (1, 4, 4), nt.CrossEntropyLoss(), seed=0)
    history = nt.fit(model, nt.FITRE(model), DataLoader(Stream(), 5), epochs=2, progress=False)
    assert len(history.steps) == 4


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (Listed([]), "Listed is empty"),
        (Listed([X[0]]), "sample 0 is a Tensor: a dataset gives pairs"),
        (Listed([{"image": X[0], "kind": 3}]), "sample 0 has the columns image, kind: give one of"),
        (Listed([{"label": 3}]), "sample 0 has the columns label"),
        (Listed([("text", 3)]), "a sample holds a str, which is no tensor"),
        (Listed([(Image.new("I", (4, 4)), 3)]), "Pillow's mode 'I': convert it"),
        ({"train": Listed([(X[0], 1)])}, r"pass one part of it, such as dataset\['train'\]"),
    ],
)
def test_what_is_no_sample_is_told(dataset: Any, message: str) -> None:
    with pytest.raises(nt.NewtritonError, match=message):
        nt.from_dataset(dataset)


def test_samples_have_one_shape() -> None:
    samples = nt.from_dataset(Listed([(X[0], 0), (X[0], 0), (X[0, :, :3], 0)]))
    with pytest.raises(nt.NewtritonError, match=r"sample 2 has \(1, 3, 4\) where sample 0 has"):
        samples.x[:]
