"""Images are decoded when they are asked for, once, whatever the order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.data.formats import images as module
from newtriton.runtime.data.formats.images import Images

from ..writers import write_jpeg


def folder_of(tmp_path: Path, count: int = 6) -> tuple[list[Path], torch.Tensor]:
    paths = [tmp_path / f"{i}.JPEG" for i in range(count)]
    return paths, torch.stack([write_jpeg(path, (16, 24), i) for i, path in enumerate(paths)])


@pytest.mark.parametrize("kept", [True, False])
def test_any_samples_are_those_of_the_files(
    kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT", 1 << 20 if kept else 0)
    paths, pixels = folder_of(tmp_path)
    images = Images(paths)
    assert images.shape == (6, 3, 16, 24)
    for index in (slice(1, 4), torch.tensor([5, 0, 5, 2]), slice(0, 0), slice(None)):
        assert torch.equal(images[index], pixels[index])
    for path in paths:
        path.unlink()
    if kept:
        assert torch.equal(images[:], pixels)
    else:
        with pytest.raises(NewtritonError, match=r"0\.JPEG cannot be read: No such file"):
            images[:]


def test_grey_images_and_those_of_four_colours_become_red_green_and_blue(tmp_path: Path) -> None:
    Image.new("L", (8, 8), 77).save(tmp_path / "0.JPEG", format="JPEG")
    Image.new("CMYK", (8, 8), (0, 0, 0, 0)).save(tmp_path / "1.JPEG", format="JPEG")
    Image.new("RGB", (8, 8), (1, 2, 3)).save(tmp_path / "2.JPEG", format="PNG")  # ImageNet's one
    images = Images([tmp_path / f"{i}.JPEG" for i in range(3)])
    assert images[:][:, :, 0, 0].tolist() == [[77] * 3, [255] * 3, [1, 2, 3]]


@pytest.mark.parametrize("size", [(256, 300), (100, 60), (400, 256)])
def test_the_middle_of_a_resized_image_is_taken(size: tuple[int, int], tmp_path: Path) -> None:
    """The border of 12 % at either end of the shorter side is cut away."""
    width, height = size
    pixels = np.zeros((height, width, 3), np.uint8)
    short = min(size)
    top, left = (height - short) // 2, (width - short) // 2
    border = short // 16
    middle = slice(border, short - border)
    pixels[top : top + short, left : left + short][middle, middle] = 200
    Image.fromarray(pixels).save(tmp_path / "0.JPEG", format="PNG")
    found = Images([tmp_path / "0.JPEG"], 224)[:][0]
    assert found.shape == (3, 224, 224)
    assert (found[:, 4:-4, 4:-4] == 200).all()


@pytest.mark.parametrize("left", [0, 10, 200, -20])
def test_a_damaged_image_has_its_place(left: int, tmp_path: Path) -> None:
    paths, _ = folder_of(tmp_path)
    images = Images(paths)
    paths[3].write_bytes(paths[3].read_bytes()[:left])
    with pytest.raises(NewtritonError, match=r"3\.JPEG, byte \d+: no whole JPEG image"):
        images[:]


def test_another_size_and_other_formats_are_told(tmp_path: Path) -> None:
    paths, _ = folder_of(tmp_path)
    write_jpeg(paths[2], (16, 16), 0)
    with pytest.raises(NewtritonError, match=r"2\.JPEG, byte 0: an image of shape \(3, 16, 16\)"):
        Images(paths)[:]
    Image.new("RGB", (24, 16)).save(paths[2], format="GIF")
    with pytest.raises(NewtritonError, match=r"2\.JPEG, byte 0: no whole JPEG image"):
        Images(paths)[:]


def test_pillow_is_named_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, _ = folder_of(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "PIL.Image", None)
    with pytest.raises(NewtritonError, match=r"needs Pillow: pip install 'newtriton\[data\]'"):
        Images(paths)
