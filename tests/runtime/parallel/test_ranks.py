"""What ranks sum and gather: the same everywhere, in few calls, each counted."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import newtriton as nt
from newtriton.runtime.parallel.buckets import Part, buckets
from newtriton.runtime.parallel.counter import Traffic
from newtriton.runtime.parallel.ranks import Listening, Ranks
from newtriton.runtime.parallel.triangles import numbers, pack, packed_size, unpack

from .workers import equal_everywhere, workers


def mine(rank: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(rank)
    vector, few = (torch.randn(n, generator=generator) for n in (1000, 3))
    square = torch.randn(2, 7, 7, generator=generator)
    return [vector, few.double(), square + square.mT]


def summed(parallel: nt.DataParallel, dtype: torch.dtype | None) -> tuple[list[Tensor], bool, dict]:
    ranks = parallel.ranks
    vector, few, square = mine(ranks.rank)
    ranks.sum_(vector, few, symmetric=[square], dtype=dtype)
    calls = dict(ranks.traffic.payload)
    return [vector, few, square], all(equal_everywhere(ranks, x) for x in (vector, square)), calls


@pytest.mark.parametrize("size", [2, 3])
def test_sums_are_the_same_on_all_ranks_and_in_two_runs(size: int) -> None:
    found, again = (workers(size)(summed, None) for _ in range(2))
    for expected, *values in zip(*map(mine, range(size)), *[x for x, *_ in found], strict=True):
        terms, results = [expected, *values[: size - 1]], values[size - 1 :]
        assert all(torch.allclose(x, sum(terms)) for x in results)
    assert all(equal for _, equal, _ in found)
    assert all(torch.equal(x, y) for x, y in zip(found[0][0], again[0][0], strict=True))
    # The vector and the triangles in one bucket of float32, the numbers of float64 in another.
    assert found[0][2] == {"all_reduce": 4 * (1000 + 2 * packed_size(7)) + 8 * 3}


def test_factors_may_travel_in_bfloat16() -> None:
    found = workers(2)(summed, torch.bfloat16)
    total = sum(mine(rank)[2] for rank in range(2))
    assert found[0][0][2].dtype == torch.float32 and found[0][1]
    assert float((found[0][0][2] - total).abs().max()) < 0.05
    assert found[0][2] == {"all_reduce": 4 * 1000 + 2 * 2 * packed_size(7) + 8 * 3}


def heard(parallel: nt.DataParallel) -> tuple[Tensor, Tensor]:
    ranks = parallel.ranks
    known = Listening(ranks) if ranks.rank == 0 else ranks
    vector = torch.full((3,), ranks.rank + 5.0)
    known.sum_(vector)
    return vector, known.all_sum(torch.full((), ranks.rank + 5.0))


def test_a_rank_that_listens_gives_zeros() -> None:
    for vector, number in workers(3)(heard):
        assert vector.tolist() == [13.0] * 3 and number == 13.0


def test_one_rank_talks_to_nobody() -> None:
    ranks, x = Ranks(None), torch.ones(2)
    assert ranks.alone and ranks.all_sum(x) is x
    ranks.sum_(x)
    assert ranks.gather(x).tolist() == [[1.0, 1.0]]
    assert not ranks.traffic.calls


@pytest.mark.parametrize("lead", [(), (3,)])
@pytest.mark.parametrize("rows", range(1, 8))
def test_a_symmetric_matrix_comes_back_from_half_of_its_numbers(
    rows: int, lead: tuple[int, ...]
) -> None:
    square = torch.randn(*lead, rows, rows)
    square, found = square + square.mT, torch.full_like(square, torch.nan)
    flat = torch.full((numbers(square, True),), torch.nan)
    pack(square, flat)
    unpack(flat, found)
    assert torch.equal(found, square)
    assert flat.numel() == (3 if lead else 1) * rows * (rows + 1) // 2


def test_buckets_hold_what_fits_and_take_a_vector_as_it_lies() -> None:
    parts = [Part(torch.ones(n), False, torch.float32) for n in (3, 4, 100, 5)]
    found = list(buckets(parts, 4 * 8))
    assert [[p.numbers for p in bucket.parts] for bucket in found] == [[3, 4], [100], [5]]
    assert found[1].packed().data_ptr() == parts[2].tensor.data_ptr()
    flat = found[0].packed()
    flat.mul_(2.0)
    found[0].unpack()
    assert [float(p.tensor.mean()) for p in parts] == [2.0, 2.0, 1.0, 1.0]


def test_traffic_is_counted() -> None:
    traffic = Traffic()
    traffic.note("all_reduce", 400, ranks=4)
    traffic.note("all_gather", 10, ranks=4)
    traffic.note("reduce", 60, ranks=2)
    traffic.note("broadcast", 90, ranks=3)
    assert traffic.sent == 2 * 0.75 * 400 + 3 * 10 + 30 + 60
    traffic.reset()
    assert traffic.sent == 0.0
