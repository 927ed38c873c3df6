"""The binary matrices of smallNORB (LeCun, Huang & Bottou 2004).

Little-endian 32-bit integers come first: a magic number that says the type, the number of axes,
and the sizes of at least three axes, those that are none being 1. Then come the values.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .contents import Contents

BYTES, INTEGERS = 0x1E3D4C55, 0x1E3D4C54
DTYPES = {BYTES: "u1", INTEGERS: "<i4"}
CAMERAS = 2
CLASSES = 5


def read_pair(images: Path, labels: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns images (N, 2, H, W) uint8 and their labels (N,) int32.

    Raises:
        NewtritonError: a file is truncated, damaged or another one.
    """
    contents, x, _ = _read(images, BYTES, 4)
    if x.shape[1] != CAMERAS:
        raise contents.damaged(12, f"{x.shape[1]} images of each object where there are {CAMERAS}")
    contents, y, start = _read(labels, INTEGERS, 1)
    if len(y) != len(x):
        raise contents.damaged(8, f"{len(y)} labels, but {images} holds {len(x)} objects")
    wrong = np.flatnonzero((y < 0) | (y >= CLASSES))
    if len(wrong):
        place = int(wrong[0])
        raise contents.damaged(start + 4 * place, f"label {y[place]} is none of 0 … {CLASSES - 1}")
    return x, y


def _read(path: Path, magic: int, axes: int) -> tuple[Contents, np.ndarray, int]:
    """Returns a file, its values, and the offset at which they begin."""
    contents = Contents.of(path)
    found, number = contents.integers(0, 2, "<u4")
    if found != magic:
        raise contents.damaged(0, f"magic number {found:#010x} where {magic:#010x} is expected")
    if number != axes:
        raise contents.damaged(4, f"{number} axes where {axes} are expected")
    sizes = contents.integers(8, max(axes, 3), "<u4")
    if 0 in sizes or any(size != 1 for size in sizes[axes:]):
        raise contents.damaged(8, f"sizes {sizes} are none of {axes} axes with samples")
    start = 8 + 4 * len(sizes)
    return contents, contents.array(start, tuple(sizes[:axes]), DTYPES[magic]), start
