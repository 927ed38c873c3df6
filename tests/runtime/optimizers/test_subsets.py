"""Batches split anew: every sample in one subset, the last of which is drawn from all of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from newtriton.runtime.optimizers.subsets import Subset, Subsets

X, Y = torch.arange(50.0)[:, None], torch.arange(50)


def cut(*cuts: int) -> tuple[list[tuple[Tensor, Tensor]], list[int]]:
    """The samples in batches, and how many each has."""
    data = [*zip(X.tensor_split(cuts), Y.tensor_split(cuts), strict=True)]
    return data, [len(y) for _, y in data]


def subsets(*cuts: int, share: float = 0.2, seed: int = 0, disjoint: bool = True) -> list[Subset]:
    return [*Subsets(*cut(*cuts), share, torch.Generator().manual_seed(seed), disjoint)]


@pytest.mark.parametrize("cuts", [(), (30, 32), (1, 2, 3, 4, 49), (10, 20, 30, 40)])
@pytest.mark.parametrize("share", [1e-3, 0.2, 0.97, 1.0])
def test_each_sample_is_in_one_of_equal_subsets(cuts: tuple[int, ...], share: float) -> None:
    largest = max(cut(*cuts)[1])
    *others, last = subsets(*cuts, share=share)
    assert len(last.y) == max(1, round(share * 50))
    for x, y, places in (*others, last):
        assert torch.equal(x[:, 0].long(), y) and torch.equal(places, y)
    sizes = [len(y) for _, y, _ in others]
    assert not sizes or (max(sizes) - min(sizes) <= 1 and max(sizes) <= largest)
    rest = torch.cat([y for _, y, _ in others]) if others else Y[:0]
    assert torch.equal(rest, rest.sort().values), "in the order of the data"
    assert torch.equal(torch.cat([rest, last.y]).sort().values, Y)


@pytest.mark.parametrize("cuts", [(), (30, 32)])
def test_the_last_is_drawn_and_the_same_in_each_pass(cuts: tuple[int, ...]) -> None:
    data, lengths = cut(*cuts)
    once = Subsets(data, lengths, 0.2, torch.Generator().manual_seed(1))
    first, again = ([y.tolist() for _, y, _ in once] for _ in range(2))
    assert first == again != [y.tolist() for _, y, _ in subsets(*cuts)]
    times, generator = torch.zeros(50), torch.Generator().manual_seed(0)
    for _ in range(500):
        *_, last = Subsets(data, lengths, 0.2, generator)
        times[last.y] += 1
    assert times.min() > 60 and times.max() < 140, "each sample a hundred times"


def test_a_share_is_of_the_whole_set_and_not_of_batches() -> None:
    x = torch.arange(12800.0)
    data = [(part, part) for part in x.split(128)]
    *_, last = Subsets(data, [128] * 100, 0.01, torch.Generator().manual_seed(0))
    assert len(last.y) == 128
    counts = last.y.div(128).long().bincount(minlength=100)
    assert counts.min() == 0 and counts.max() > 1


@pytest.mark.parametrize("cuts", [(), (30, 32)])
def test_what_ranks_have_of_the_sample_stands_where_one_has_it(cuts: tuple[int, ...]) -> None:
    whole, (data, lengths) = subsets(*cuts, share=0.5)[-1], cut(*cuts)
    found = torch.full_like(whole.y, -1)
    for rank in range(3):
        ends = [(n * rank // 3, n * (rank + 1) // 3) for n in lengths]
        here = [(x[a:b], y[a:b]) for (x, y), (a, b) in zip(data, ends, strict=True)]
        generator, parts = torch.Generator().manual_seed(0), [(a, b - a) for a, b in ends]
        own = Subsets(here, lengths, 0.5, generator, parts=parts)
        *_, sample = own
        assert own.order is not None
        found[own.order] = sample.y
    assert torch.equal(found, whole.y)


def test_subsets_that_are_not_disjoint_are_the_batches_and_a_sample_of_them() -> None:
    *others, last = subsets(30, 32, disjoint=False)
    assert [y.tolist() for _, y, _ in others] == [y.tolist() for _, y in cut(30, 32)[0]]
    assert torch.equal(last.places, subsets(30, 32)[-1].places)


def test_subsets_in_which_nothing_counts_are_left_out() -> None:
    y = torch.tensor([0, 0, 1, 1, 1, 1])
    data = [(y[:, None].double(), y)]
    generator = torch.Generator().manual_seed(0)
    everything = Subsets(data * 2, [6, 6], 0.5, generator)
    some = Subsets(data * 2, [6, 6], 0.5, generator, counts=lambda labels: bool(labels.sum() > 3))
    assert len(list(everything)) == 2
    *others, sample = some
    assert all(subset.y.sum() > 3 for subset in others)
    assert sample is some.sample
