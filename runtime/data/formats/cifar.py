"""The binary versions of CIFAR-10 and CIFAR-100 (Krizhevsky 2009).

A record is one label byte, or the coarse and the fine label, and 3072 bytes: 32×32 pixels of red,
of green, of blue, row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .contents import Contents

IMAGE = (3, 32, 32)
PIXELS = 3072


def read(paths: Sequence[Path], classes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images (N, 3, 32, 32) of all files and their last labels (N,), both uint8.

    Args:
        paths: the files, in their order.
        classes: the number of classes of each label of a record.

    Raises:
        NewtritonError: a file is truncated, damaged or another one.
    """
    records = np.concatenate([_records(Contents.of(path), classes) for path in paths])
    images = records[:, len(classes) :].reshape(-1, *IMAGE)
    return images, records[:, len(classes) - 1]


def _records(contents: Contents, classes: Sequence[int]) -> np.ndarray:
    """Returns the records of a file as rows of bytes."""
    length = len(classes) + PIXELS
    number, rest = divmod(len(contents.data), length)
    if rest:
        raise contents.damaged(
            number * length,
            f"{rest} bytes follow {number} whole records of {length} bytes: get the file again",
        )
    if number == 0:
        raise contents.damaged(0, "the file is empty: get it again")
    records = contents.array(0, (number, length))
    for place, count in enumerate(classes):
        wrong = np.flatnonzero(records[:, place] >= count)
        if len(wrong):
            row = int(wrong[0])
            raise contents.damaged(
                row * length + place,
                f"label {records[row, place]} is none of 0 … {count - 1}: the file is damaged, or "
                "not the binary version",
            )
    return records
