"""What data draw from is set back, and what cannot be is named."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, TensorDataset

import newtriton as nt
from newtriton.runtime.data.sources import length_of, not_restored, sources

SET = TensorDataset(torch.arange(9.0), torch.arange(9))


def drawn() -> list[float]:
    return [torch.rand(()).item(), np.random.rand()]


def test_the_generators_of_a_loader_and_its_samplers_are_found() -> None:
    generator = torch.Generator().manual_seed(1)
    sampler = RandomSampler(SET, generator=generator)
    batches = torch.utils.data.BatchSampler(sampler, 2, drop_last=False)
    loader = DataLoader(SET, batch_sampler=batches)
    before = {name: source.get() for name, source in sources(loader).items()}
    first = ([y.tolist() for _, y in loader], drawn())
    for name, source in sources(loader).items():
        source.set(before[name])
    assert ([y.tolist() for _, y in loader], drawn()) == first


class Stream(IterableDataset):
    def __iter__(self):
        return iter(SET)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (nt.Batches(*SET.tensors, 2), None),
        ([SET.tensors], None),
        (DataLoader(SET, num_workers=2), None),
        (DataLoader(SET, num_workers=2, persistent_workers=True), "persistent workers"),
        (DataLoader(Stream()), "IterableDataset"),
        (zip([1], [2], strict=True), "a zip draws from"),
    ],
)
def test_what_cannot_be_restored_is_named(data: object, named: str | None) -> None:
    found = not_restored(data)
    assert found is None if named is None else named in found


class Broken:
    """Data whose length fails."""

    def __len__(self) -> int:
        raise RuntimeError("not today")

    def __iter__(self) -> Iterator[object]:
        raise AssertionError("nobody is to ask")


def test_a_length_that_fails_is_told_before_the_first_batch() -> None:
    assert length_of("data", [1, 2]) == 2
    assert length_of("data", DataLoader(Stream())) is None
    model = nt.compile(nt.Linear(1), (2,), nt.MSELoss(), device="cpu")
    optimizer = nt.NewtonCG(model)
    calls = (
        lambda data: nt.evaluate(model, data),
        lambda data: nt.fit(model, optimizer, data, progress=False),
        lambda data: nt.LinearizedData(model, data),
        optimizer.step,
        nt.from_dataset,
    )
    for call in calls:
        with pytest.raises(nt.NewtritonError, match=r"whose length fails with RuntimeError: not"):
            call(Broken())
