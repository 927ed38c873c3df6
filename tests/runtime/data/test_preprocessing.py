"""Preprocessing by name is what the papers write, fitted on the training images alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import newtriton as nt
from newtriton.runtime.data import preprocessing as module
from newtriton.runtime.data.preprocessing import names_of, prepared

from .writers import write_idx, write_norb

GENERATOR = torch.Generator().manual_seed(0)
TRAIN = torch.randint(256, (20, 3, 6, 9), generator=GENERATOR, dtype=torch.uint8)
TEST = torch.randint(200, (8, 3, 6, 9), generator=GENERATOR, dtype=torch.uint8)


def both(*names: str) -> tuple[torch.Tensor, torch.Tensor]:
    train, test = prepared(
        nt.Samples(TRAIN, torch.zeros(20)), nt.Samples(TEST, torch.zeros(8)), names_of(names)
    )
    return train.x, test.x


def test_without_any_values_are_bytes_over_255() -> None:
    train, test = both("none")
    assert torch.equal(train, TRAIN.float() / 255)
    assert torch.equal(test, TEST.float() / 255)


def test_newton_cnn_scales_each_image_and_takes_off_each_pixels_mean() -> None:
    def scaled(x: torch.Tensor) -> torch.Tensor:
        least, most = (f(x.double(), (1, 2, 3), keepdim=True) for f in (torch.amin, torch.amax))
        return (x.double() - least) / (most - least)

    train, test = both("newton-cnn")
    mean = scaled(TRAIN).mean(0)
    assert torch.allclose(train.double(), scaled(TRAIN) - mean, atol=1e-6)
    assert torch.allclose(test.double(), scaled(TEST) - mean, atol=1e-6)
    assert float(train.mean(0).abs().max()) < 1e-6
    assert float(test.mean(0).abs().max()) > 1e-2


def test_standard_images_have_mean_0_and_deviation_1_in_each_channel() -> None:
    train, test = both("standard")
    x = TRAIN.double() / 255
    mean, deviation = x.mean((0, 2, 3), keepdim=True), x.std((0, 2, 3), keepdim=True, correction=0)
    assert torch.allclose(train.double(), (x - mean) / deviation, atol=1e-5)
    assert torch.allclose(test.double(), (TEST.double() / 255 - mean) / deviation, atol=1e-5)


def test_unit_variance_takes_one_number_for_all_pixels() -> None:
    train, _ = both("unit-variance")
    x = TRAIN.double() / 255
    deviation = x.var(0, correction=0).mean().sqrt()
    assert torch.allclose(train.double(), (x - x.mean(0)) / deviation, atol=1e-5)


def test_steps_apply_in_their_order() -> None:
    pooled, _ = both("max-pool", "min-max")
    expected = F.max_pool2d(TRAIN.float() / 255, 3)
    flat = expected.flatten(1)
    span = (flat - flat.amin(1, keepdim=True)) / (flat.amax(1) - flat.amin(1))[:, None]
    assert torch.allclose(pooled.flatten(1), span, atol=1e-6)


def test_images_of_one_value_stay_finite() -> None:
    x = torch.full((4, 1, 2, 2), 9, dtype=torch.uint8)
    samples = nt.Samples(x, torch.zeros(4))
    for name in ("min-max", "newton-cnn", "standard", "unit-variance"):
        assert torch.equal(prepared(samples, samples, names_of(name))[0].x, torch.zeros(4, 1, 2, 2))


def test_small_norb_is_pooled_to_32_pixels(tmp_path: Path) -> None:
    (x, _), _ = write_norb(tmp_path, zipped=True)
    train, test = nt.load("smallnorb", tmp_path, preprocessing="newton-cnn")
    assert (tuple(train.x.shape), tuple(test.x.shape)) == ((6, 2, 32, 32), (5, 2, 32, 32))
    pooled, _ = nt.load("smallnorb", tmp_path, preprocessing="max-pool")
    assert torch.equal(pooled.x, F.max_pool2d(x.float(), 3) / 255)


def test_large_images_stay_lazy_and_give_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_idx(tmp_path)
    small, _ = nt.load("mnist", tmp_path, preprocessing="newton-cnn")
    monkeypatch.setattr(module, "LARGE", 1000)
    train, test = nt.load("mnist", tmp_path, preprocessing="newton-cnn")
    assert isinstance(train.x, nt.Lazy)
    assert isinstance(test.x, nt.Lazy)
    assert torch.equal(train.x[:], small.x)


def test_augmentation_is_in_training_alone(tmp_path: Path) -> None:
    write_idx(tmp_path)
    train, test = nt.load("mnist", tmp_path, preprocessing=("crop-flip", "standard"))
    assert isinstance(train.x, nt.Lazy)
    assert isinstance(test.x, torch.Tensor)
    assert torch.equal(train.x[:], nt.load("mnist", tmp_path, preprocessing="standard")[0].x)
    plain = nt.Batches(train.x[:], train.y, 5)
    for (x, y), (_, same) in zip(nt.Batches(*train, 5), plain, strict=True):
        assert torch.equal(y, same)
        assert x.shape == (len(y), 1, 28, 28)
    assert not torch.equal(next(iter(nt.Batches(*train, 5))).x, next(iter(plain)).x)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("mean", "preprocessing is 'mean': one of 'none', 'newton-cnn'"),
        (["min-max", 3], "preprocessing is 3: one of"),
        (3, "preprocessing is 3: give a name or a list"),
    ],
)
def test_other_names_are_told(names: object, message: str) -> None:
    with pytest.raises(nt.NewtritonError, match=message):
        nt.load("digits", preprocessing=names)


def test_steps_that_do_not_fit_are_told() -> None:
    with pytest.raises(nt.NewtritonError, match="height and width are multiples of 3"):
        nt.load("digits", preprocessing="max-pool")
    x = torch.zeros(6, 1, 4, 4)
    with pytest.raises(nt.NewtritonError, match="inputs of an autoencoder"):
        prepared(nt.Samples(x, x), nt.Samples(x, x), ("crop-flip",))
    with pytest.raises(nt.NewtritonError, match="give the files of one data set"):
        prepared(nt.Samples(x, x), nt.Samples(x[..., :3], x), ())
