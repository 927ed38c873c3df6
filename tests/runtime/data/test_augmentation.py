"""Crop and flip: every image is a window of the padded one, or of its mirror image."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import newtriton as nt
from newtriton.runtime.optimizers.passes import Passes

IMAGES = torch.rand(40, 2, 8, 6)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def windows(image: torch.Tensor, padding: int) -> list[torch.Tensor]:
    padded = F.pad(image, (padding,) * 4)
    _, height, width = image.shape
    places = range(2 * padding + 1)
    cut = [padded[:, i : i + height, j : j + width] for i in places for j in places]
    return cut + [window.flip(-1) for window in cut]


@pytest.mark.parametrize("padding", [0, 1, 3])
def test_an_image_is_a_window_of_the_padded_one(padding: int) -> None:
    for image, changed in zip(IMAGES, nt.CropFlip(padding)(IMAGES, generator()), strict=True):
        assert any(torch.equal(changed, window) for window in windows(image, padding))


def test_every_place_comes_and_half_are_mirrored() -> None:
    image = torch.rand(1, 1, 8, 8).expand(4000, 1, 8, 8)
    changed = nt.CropFlip(1)(image, generator())
    counts = [int((changed == window).all((1, 2, 3)).sum()) for window in windows(image[0], 1)]
    assert sum(counts) == 4000
    assert min(counts) > 150  # of 222 on average
    assert abs(sum(counts[:9]) - 2000) < 150


def test_an_eighth_is_padded_unless_given() -> None:
    images = torch.rand(30, 1, 32, 32)
    assert torch.equal(nt.CropFlip()(images, generator()), nt.CropFlip(4)(images, generator()))


def test_only_the_generator_decides() -> None:
    same = [nt.CropFlip(1)(IMAGES, generator(3)) for _ in range(2)]
    assert torch.equal(*same)
    assert not torch.equal(same[0], nt.CropFlip(1)(IMAGES, generator(4)))


def test_batches_draw_anew_in_each_epoch_and_as_before_when_resumed() -> None:
    def batches() -> nt.Batches:
        return nt.Batches(IMAGES, torch.arange(40), 16, seed=5, transform=nt.CropFlip(2))

    one = batches()
    first, second = (torch.cat([x for x, _ in one]) for _ in range(2))
    order = torch.cat([y for _, y in one])
    resumed = batches()
    resumed.load_state_dict({"epoch": 1})
    assert torch.equal(second, torch.cat([x for x, _ in resumed]))
    assert not torch.equal(first, second)
    assert sorted(order.tolist()) == list(range(40))
    torch.manual_seed(1)  # the global generator has no part in it
    assert torch.equal(first, torch.cat([x for x, _ in batches()]))


def test_all_passes_of_one_step_see_the_same_images() -> None:
    batches = nt.Batches(IMAGES, torch.arange(40), 16, transform=nt.CropFlip(2))
    passes = Passes(batches)
    first, second = ([x for x, _ in passes] for _ in range(2))
    assert all(map(torch.equal, first, second))
    assert not torch.equal(first[0], next(iter(batches)).x)  # the next epoch goes on


def test_a_transform_leaves_the_order_as_it_is() -> None:
    plain = nt.Batches(IMAGES, torch.arange(40), 16)
    changed = nt.Batches(IMAGES, torch.arange(40), 16, transform=lambda x, _: -x)
    for one, other in zip(plain, changed, strict=True):
        assert torch.equal(one.y, other.y)
        assert torch.equal(one.x, -other.x)


def test_what_is_no_image_is_told() -> None:
    with pytest.raises(nt.NewtritonError, match=r"inputs of shape torch.Size\(\[4, 9\]\)"):
        nt.CropFlip()(torch.zeros(4, 9), generator())
    with pytest.raises(nt.NewtritonError, match="padding is -1"):
        nt.CropFlip(-1)
