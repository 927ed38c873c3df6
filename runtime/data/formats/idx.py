"""The IDX files of MNIST and Fashion-MNIST (LeCun, Cortes & Burges, "The MNIST database").

A big-endian magic number 0x0000TTDD says type and number of axes, 0x08 being unsigned bytes; the
sizes of the axes follow as 32-bit integers, then the values.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .contents import Contents

BYTES = 0x0800  # the magic number but for the number of axes
CLASSES = 10


def read_pair(images: Path, labels: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns images (N, 1, H, W) and their labels (N,), both uint8.

    Raises:
        NewtritonError: a file is truncated, damaged or another one.
    """
    _, x = _read(images, 3)
    contents, y = _read(labels, 1)
    if len(y) != len(x):
        raise contents.damaged(4, f"{len(y)} labels, but {images} holds {len(x)} images")
    wrong = np.flatnonzero(y >= CLASSES)
    if len(wrong):
        place = int(wrong[0])
        raise contents.damaged(8 + place, f"label {y[place]} is none of 0 … {CLASSES - 1}")
    return x[:, None], y


def _read(path: Path, axes: int) -> tuple[Contents, np.ndarray]:
    """Returns a file and its values."""
    contents = Contents.of(path)
    (magic,) = contents.integers(0, 1, ">u4")
    if magic != BYTES + axes:
        raise contents.damaged(
            0, f"magic number {magic:#010x} where {BYTES + axes:#010x} is expected"
        )
    shape = tuple(contents.integers(4, axes, ">u4"))
    if 0 in shape:
        raise contents.damaged(4, f"sizes {shape}, which are no samples")
    return contents, contents.array(4 + 4 * axes, shape)
