"""Batches that grow: their sizes, that no sample is lost, and how they resume."""

from __future__ import annotations

import pytest
import torch

import newtriton as nt
from newtriton.compiler.graph.errors import NewtritonError

X, Y = torch.arange(100.0)[:, None], torch.arange(100)


def test_sizes_grow_by_a_constant_factor_up_to_the_last() -> None:
    batches = nt.GrowingBatches(X, Y, 4, 64, steps=9)
    expected = [4, 6, 8, 11, 16, 23, 32, 45, 64, 64, 64]  # 4·√2^k
    assert [batches.size(k) for k in range(11)] == expected and batches.size(2**40) == 64
    sizes = [len(x) for _ in range(5) for x, _ in batches]
    assert sizes == [4, 6, 8, 11, 16, 23, 32, 45, 55, 64, 36, 64, 36, 64, 36]


def test_an_epoch_has_every_sample_once_in_a_new_order() -> None:
    batches = nt.GrowingBatches(X, Y, 7, 30, steps=6, seed=3)
    orders = []
    for _ in range(3):
        length = len(batches)
        epoch = list(batches)
        assert len(epoch) == length
        assert all(torch.equal(x[:, 0].long(), y) for x, y in epoch)
        orders.append(torch.cat([y for _, y in epoch]))
        assert torch.equal(orders[-1].sort().values, Y)
    assert not torch.equal(orders[0], orders[1])
    assert torch.equal(next(iter(nt.GrowingBatches(X, Y, 7, shuffle=False)))[1], Y[:7])


def test_a_run_resumes() -> None:
    one, other = (nt.GrowingBatches(X, Y, 5, steps=20, seed=1) for _ in range(2))
    list(one)
    other.load_state_dict(one.state_dict())
    for (x, y), (u, v) in zip(one, other, strict=True):
        assert torch.equal(x, u)
        assert torch.equal(y, v)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"first": 0}, "first is 0"),
        ({"first": 2.5}, r"first is 2\.5"),
        ({"first": 8, "last": 4}, "last is 4"),
        ({"first": 8, "steps": 1}, "steps is 1"),
        ({"first": 101}, "last is 100"),
    ],
)
def test_refuses_options(options: dict, named: str) -> None:
    with pytest.raises(NewtritonError, match=named):
        nt.GrowingBatches(X, Y, **options)
