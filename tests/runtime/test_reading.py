"""Numbers that come over together, and largest elements that are remembered."""

from __future__ import annotations

import math

import pytest
import torch

from newtriton.runtime.reading import all_finite, finite, largest_of, read, remember, upload

from .transfers import counted


def test_numbers_of_any_type_and_shape_come_over_in_one_transfer() -> None:
    given = (torch.tensor(True), torch.arange(6).view(2, 3), torch.tensor([0.1]), torch.ones(()))
    with counted() as transfers:
        found = read(*given)
    assert sum(transfers.reads.values()) == 1
    for array, tensor in zip(found, given, strict=True):
        assert array.tolist() == tensor.double().tolist()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_element_that_is_not_finite_is_seen(bad: float, dtype: torch.dtype) -> None:
    for n in (1, 3, 1000):
        x = torch.linspace(-1.0, 1.0, n, dtype=dtype)
        image = x.repeat(4, 2, 1).permute(0, 2, 1)
        assert finite(x) and finite(image) and all_finite([x, image])
        for place in {0, n // 2, n - 1}:
            spoilt = image.clone()
            spoilt[2, place, 1] = bad
            assert not finite(spoilt)
            assert not all_finite([x, spoilt, x])
            assert not math.isfinite(largest_of(spoilt))


def test_the_largest_element_is_remembered_until_the_tensor_changes() -> None:
    x, other = torch.tensor([1.0, -3.0]), torch.ones(2)
    with counted() as transfers:
        read(torch.ones(()), largest=[x, other])
        assert largest_of(x) == 3.0 and largest_of(other) == 1.0
        assert sum(transfers.reads.values()) == 1
        x.mul_(2.0)
        assert largest_of(x) == 6.0
        assert sum(transfers.reads.values()) == 2
        x[0] = math.nan
        assert math.isnan(largest_of(x))
        assert sum(transfers.reads.values()) == 3


def test_a_bound_is_remembered_in_place_of_the_largest_element() -> None:
    x = torch.tensor([1.0, -3.0])
    with counted() as transfers:
        remember(x, 4.0)
        assert largest_of(x) == 4.0
        assert not sum(transfers.reads.values())
    assert largest_of(x.neg_()) == 3.0


def test_a_tensor_that_does_not_tell_when_it_changes_is_read_again() -> None:
    with torch.inference_mode():
        x = torch.ones(2)
        read(largest=[x])
        x.mul_(3.0)
        assert largest_of(x) == 3.0


def test_numbers_go_to_the_device_without_a_copy_from_the_host() -> None:
    like = torch.ones(3, dtype=torch.float32)
    with counted() as transfers:
        found = upload([0.1, math.inf], like)
    assert not sum(transfers.copies.values())
    assert torch.equal(found, torch.tensor([0.1, math.inf]))
