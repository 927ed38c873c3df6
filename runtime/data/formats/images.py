"""Images in files, decoded by Pillow when they are asked for, and kept as bytes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from ...disk import opened
from .contents import damaged
from .extras import need

KEPT = 4 << 30  # bytes of pixels that stay in memory; 100,000 images of 64×64 take 1.2 GB
FORMATS = ("JPEG", "PNG")  # ImageNet holds a PNG under the name of a JPEG
LARGEST = 1 << 26  # pixels of an image; ImageNet's largest has 61 million
BYTES = 1 << 28  # of a file
RESIZED = 8 / 7  # of the side that is cropped: 256 pixels for 224


class Images:
    """Images (N, 3, H, W) of bytes, each decoded once.

    Several threads decode a batch; the pixels are kept where all of them take no more than KEPT.

    Args:
        paths: the files.
        side: H and W: the middle of each image, whose shorter side is resized to 8/7 of it; without
            it, all images have to be of the first one's size.

    Attributes:
        paths: the files.
        shape: the number of images and the shape of each.
    """

    def __init__(self, paths: Sequence[Path], side: int | None = None) -> None:
        need("PIL.Image", "Pillow", f"a folder of JPEG files ({paths[0].parent})")
        self.paths, self._side = paths, side
        self.shape = (len(paths), *_decoded(side, None, paths[0]).shape)
        keeps = int(np.prod(self.shape)) <= KEPT
        self._pixels = torch.empty(self.shape, dtype=torch.uint8, device="cpu") if keeps else None
        self._known = torch.zeros(len(paths), dtype=torch.bool, device="cpu")

    def __getitem__(self, index: Any) -> Tensor:
        numbers = torch.arange(len(self.paths), device="cpu")[index]
        if self._pixels is None:
            return self._read(numbers)
        missing = numbers[~self._known[numbers]].unique()
        if len(missing):
            self._pixels[missing] = self._read(missing)
            self._known[missing] = True
        return self._pixels[index]

    def _read(self, numbers: Tensor) -> Tensor:
        """Returns the images with these numbers from their files."""
        decode = partial(_decoded, self._side, self.shape[1:])
        with ThreadPoolExecutor(min(os.cpu_count() or 1, 16)) as pool:
            found = list(pool.map(decode, [self.paths[i] for i in numbers.tolist()]))
        return (
            torch.from_numpy(np.stack(found))
            if found
            else torch.empty(0, *self.shape[1:], device="cpu")
        )


def _decoded(side: int | None, shape: tuple[int, ...] | None, path: Path) -> np.ndarray:
    """Returns the pixels (3, H, W) of a file.

    Args:
        side: H and W, or None for those of the file.
        shape: what the pixels' shape has to be, None for any.
        path: the file.

    Raises:
        NewtritonError: the file cannot be read, is damaged, or has another size.
    """
    module = need("PIL.Image", "Pillow", str(path))
    with opened(path, BYTES) as file:
        try:
            colours = _colours(file, module)
            if side is not None:
                colours = _middle(colours, side, module)
        except Exception as error:  # Pillow raises whatever its decoder stumbles over
            at = 0 if isinstance(error, module.UnidentifiedImageError) else file.tell()
            what = f"no whole JPEG image ({error}): get the file again"
            raise damaged(path, at, what) from error
    pixels = np.asarray(colours).transpose(2, 0, 1)
    if shape is not None and pixels.shape != shape:
        raise damaged(
            path, 0, f"an image of shape {pixels.shape} where the others have {tuple(shape)}"
        )
    return pixels


def _colours(file: BinaryIO, module: Any) -> Any:
    """Returns the image of a file in red, green and blue.

    Pillow compares the checksums of a PNG only where it is asked to.
    """
    with module.open(file, formats=FORMATS) as image:
        _check_size(*image.size)
        if image.format != "PNG":
            return image.convert("RGB")
        image.verify()
    file.seek(0)
    with module.open(file, formats=FORMATS) as image:
        return image.convert("RGB")


def _middle(image: Any, side: int, module: Any) -> Any:
    """Returns the middle square of an image whose shorter side is first made 8/7 as long."""
    scale = round(side * RESIZED) / min(image.size)
    width, height = (max(side, round(length * scale)) for length in image.size)
    _check_size(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    resized = image.resize((width, height), module.Resampling.BILINEAR)
    return resized.crop((left, top, left + side, top + side))


def _check_size(width: int, height: int) -> None:
    """Raises an error where an image is larger than any that is published."""
    if width * height > LARGEST:
        raise ValueError(f"{width}×{height} pixels, where {LARGEST} are the most")
