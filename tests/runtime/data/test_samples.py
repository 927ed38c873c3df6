"""Batches cover the data, repeat and resume; the digits are split by class."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import newtriton as nt
from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.data.samples import Batches, Samples, digits, split
from newtriton.runtime.parallel.ranks import Ranks


def numbered(n: int) -> Samples:
    return Samples(torch.arange(n, dtype=torch.float32)[:, None], torch.arange(n))


def labels_of(batches: Batches) -> list[list[int]]:
    return [y.tolist() for _, y in batches]


@pytest.mark.parametrize("shuffle", [False, True])
def test_an_epoch_visits_every_sample_once_with_its_own_label(shuffle: bool):
    batches = Batches(*numbered(10), batch_size=4, shuffle=shuffle)
    seen = list(batches)
    assert len(seen) == len(batches) == 3
    assert [len(y) for _, y in seen] == [4, 4, 2]
    assert all(torch.equal(x[:, 0].long(), y) for x, y in seen)
    assert sorted(torch.cat([y for _, y in seen]).tolist()) == list(range(10))


def test_drop_last_leaves_whole_batches():
    batches = Batches(*numbered(10), batch_size=4, drop_last=True)
    assert [len(y) for _, y in batches] == [4, 4]
    assert len(batches) == 2


def test_without_shuffling_the_order_is_the_given_one():
    assert labels_of(Batches(*numbered(5), batch_size=2, shuffle=False)) == [[0, 1], [2, 3], [4]]


def test_the_order_changes_with_epoch_and_seed_and_repeats():
    batches, same = (Batches(*numbered(50), batch_size=7, seed=3) for _ in range(2))
    other = Batches(*numbered(50), batch_size=7, seed=4)
    first, second = labels_of(batches), labels_of(batches)
    assert first != second
    assert [labels_of(same), labels_of(same)] == [first, second]
    assert labels_of(other) != first


def test_the_order_does_not_depend_on_the_global_generator():
    torch.manual_seed(1)
    first = labels_of(Batches(*numbered(50), batch_size=7))
    torch.manual_seed(2)
    assert labels_of(Batches(*numbered(50), batch_size=7)) == first


def test_a_saved_state_continues_with_the_next_epoch():
    batches, resumed = (Batches(*numbered(50), batch_size=7) for _ in range(2))
    labels_of(batches)
    resumed.load_state_dict(batches.state_dict())
    assert labels_of(resumed) == labels_of(batches)


def noisy(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return x + torch.rand(x.shape, generator=generator)


def made(kind: str) -> Batches:
    x, y = numbered(50)
    if kind == "growing":
        return nt.GrowingBatches(x, y, 4, 20, steps=9, seed=3, transform=noisy)
    if kind == "lazy":
        return Batches(nt.Lazy(x.float(), transform=noisy), y, 7, seed=3)
    return Batches(x.float(), y, 7, seed=3, drop_last=kind == "dropped", transform=noisy)


@pytest.mark.parametrize("kind", ["dense", "dropped", "lazy", "growing"])
@pytest.mark.parametrize("left", [False, True])
def test_a_state_within_an_epoch_continues_there(kind: str, left: bool):
    whole = made(kind)
    batches = [batch for _ in range(3) for batch in whole]
    for given in range(len(batches)):
        data, taken = made(kind), 0
        while taken < given:
            for _ in data:
                taken += 1
                if taken == given:
                    state = data.state_dict()
                    break
        state = data.state_dict() if left or not given else state
        resumed = made(kind)
        resumed.load_state_dict(state)
        rest = [batch for _ in range(4) for batch in resumed][: len(batches) - given]
        assert len(rest) == len(batches) - given
        for (x, y), (u, v) in zip(rest, batches[given:], strict=True):
            assert torch.equal(x, u)
            assert torch.equal(y, v)
        assert [*resumed.coming()] == [*made(kind).coming()]


def test_a_pass_that_is_left_is_followed_by_a_new_epoch_and_so_is_what_is_set_back():
    data = made("dense")
    next(iter(data))
    coming = data.coming()
    assert coming == {"epoch": 1}
    second = labels_of(data)
    data.load_state_dict(coming)
    assert labels_of(data) == second


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"epoch": -1}, "epoch is -1"),
        ({}, "epoch is None"),
        ({"epoch": 1, "batch": 8}, "8 batches of an epoch have been given, which has 8 here"),
        ({"epoch": 1, "batch": 0.5}, r"batch is 0\.5"),
        ({"epoch": 1, "batch": 2, "generator": torch.zeros(3)}, "generator is no state"),
    ],
)
def test_a_state_of_other_batches_changes_nothing(state: dict, message: str):
    data = made("dense")
    with pytest.raises(NewtritonError, match=message):
        data.load_state_dict(state)
    assert data.state_dict() == {"epoch": 0}


def test_two_iterations_at_once_do_not_disturb_each_other():
    batches = Batches(*numbered(6), batch_size=6)
    pairs = zip(batches, batches, strict=True)
    ((_, one), (_, other)) = next(pairs)
    assert sorted(one.tolist()) == sorted(other.tolist()) == list(range(6))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 11, "drop_last": True}, "drop_last=False"),
        ({"batch_size": 1, "seed": -1}, "seed is -1"),
    ],
)
def test_unusable_arguments_are_named(arguments: dict, message: str):
    with pytest.raises(NewtritonError, match=message):
        Batches(*numbered(10), **arguments)


def test_labels_must_match_the_inputs():
    with pytest.raises(NewtritonError, match="3 inputs but 2 labels"):
        Batches(torch.zeros(3, 1), torch.zeros(2), batch_size=1)
    with pytest.raises(NewtritonError, match="no samples"):
        Batches(torch.zeros(0, 1), torch.zeros(0), batch_size=1)


def test_digits_have_their_shapes_scale_and_fixed_split():
    train, test = digits()
    assert train.x.shape == (1437, 1, 8, 8)
    assert test.x.shape == (360, 1, 8, 8)
    assert (train.x.dtype, train.y.dtype) == (torch.float32, torch.int64)
    assert abs(train.x.mean()) < 1e-5
    assert abs(train.x.std() - 1) < 1e-5
    assert torch.equal(digits()[1].x, test.x)
    assert not torch.equal(digits(seed=1)[1].y, test.y)


def test_a_split_keeps_the_share_of_every_class():
    train, test = digits(validation=0.25)
    shares = torch.bincount(test.y) / (torch.bincount(train.y) + torch.bincount(test.y))
    assert torch.allclose(shares, torch.full((10,), 0.25), atol=0.01)


@pytest.mark.parametrize(
    "y", [lambda x: x[:, 0].long() % 2, lambda x: x], ids=["classes", "images"]
)
def test_a_split_loses_no_sample(y: Callable[[torch.Tensor], torch.Tensor]):
    x = torch.arange(40.0)[:, None]
    parts = split(Samples(x, y(x)), 0.3)
    assert [len(part.y) for part in parts] == [28, 12]
    assert sorted(torch.cat([part.x[:, 0] for part in parts]).tolist()) == list(range(40))


@pytest.mark.parametrize("validation", [0.0, 1.0, -0.5, 0.001])
def test_an_impossible_share_is_refused(validation: float):
    with pytest.raises(NewtritonError, match=str(validation)):
        digits(validation=validation)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("transform", [None, lambda x, g: x + torch.rand(x.shape, generator=g)])
def test_ranks_divide_each_batch(shuffle: bool, transform: Any) -> None:
    """Their parts one after another are the batch, whatever is drawn for it."""
    x, y = torch.arange(11.0)[:, None], torch.arange(11)
    options = {"batch_size": 4, "shuffle": shuffle, "transform": transform}
    parts = []
    for rank in range(3):
        parallel = nt.DataParallel()
        parallel._ranks = ranks = Ranks(None)
        ranks.rank, ranks.size = rank, 3
        parts.append(list(nt.Batches(x, y, **options, parallel=parallel)))
    for whole, *divided in zip(nt.Batches(x, y, **options), *parts, strict=True):
        assert torch.equal(torch.cat([part.x for part in divided]), whole.x)
        assert torch.equal(torch.cat([part.y for part in divided]), whole.y)
        sizes = [len(part.y) for part in divided]
        assert max(sizes) - min(sizes) <= 1
