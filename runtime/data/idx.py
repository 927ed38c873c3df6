"""The IDX files of MNIST and Fashion-MNIST (LeCun, Cortes & Burges, "The MNIST database").

A big-endian magic number 0x0000TTDD says type and number of axes, 0x08 being unsigned bytes; the
sizes of the axes follow as 32-bit integers, then the values.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .contents import Contents

MAGIC = {1: 0x0801, 3: 0x0803}  # by the number of axes
SIZE = (28, 28)
CLASSES = 10


def read_pair(images: Path, labels: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns images (N, 1, 28, 28) and their labels (N,), both uint8.

    Raises:
        NewtritonError: a file is truncated, damaged or another one.
    """
    x, y = _read(images, SIZE), _read(labels, ())
    contents, values = y
    if len(values) != len(x[1]):
        raise contents.damaged(4, f"{len(values)} labels, but {images} holds {len(x[1])} images")
    wrong = np.flatnonzero(values >= CLASSES)
    if len(wrong):
        raise contents.damaged(
            8 + int(wrong[0]), f"label {values[wrong[0]]} is none of 0 … {CLASSES - 1}"
        )
    return x[1][:, None], values


def _read(path: Path, size: tuple[int, ...]) -> tuple[Contents, np.ndarray]:
    """Returns a file and its values, samples of one size."""
    contents = Contents.of(path)
    axes = 1 + len(size)
    (magic,) = contents.integers(0, 1, ">u4")
    if magic != MAGIC[axes]:
        raise contents.damaged(0, f"magic number {magic:#010x} where {MAGIC[axes]:#010x} is IDX's")
    shape = tuple(contents.integers(4, axes, ">u4"))
    if shape[1:] != size:
        found = "×".join(map(str, shape[1:]))
        raise contents.damaged(8, f"images of {found} pixels where {size[0]}×{size[1]} are MNIST's")
    if shape[0] == 0:
        raise contents.damaged(4, "there are no samples")
    return contents, contents.array(4 + 4 * axes, shape)
