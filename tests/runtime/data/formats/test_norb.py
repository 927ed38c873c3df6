"""Binary matrices of smallNORB hold pairs of images and their classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.data.formats.norb import read_pair

from ..writers import matrix_bytes

IMAGES = np.arange(3 * 2 * 96 * 96, dtype=np.uint64).astype(np.uint8).reshape(3, 2, 96, 96)
LABELS = np.array([4, 0, 2], np.int32)


def read(tmp_path: Path, images: bytes, labels: bytes) -> tuple[np.ndarray, np.ndarray]:
    (tmp_path / "dat").write_bytes(images)
    (tmp_path / "cat").write_bytes(labels)
    return read_pair(tmp_path / "dat", tmp_path / "cat")


def test_images_and_labels_are_as_they_were_written(tmp_path: Path) -> None:
    x, y = read(tmp_path, matrix_bytes(IMAGES), matrix_bytes(LABELS))
    assert np.array_equal(x, IMAGES)
    assert np.array_equal(y, LABELS)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (matrix_bytes(LABELS), matrix_bytes(LABELS), "dat, byte 0: magic number 0x1e3d4c54"),
        (matrix_bytes(IMAGES[0]), matrix_bytes(LABELS), "dat, byte 4: 3 axes where 4"),
        (matrix_bytes(IMAGES[:, :1]), matrix_bytes(LABELS), "dat, byte 12: 1 images of each"),
        (matrix_bytes(IMAGES[:0]), matrix_bytes(LABELS), "dat, byte 8: sizes"),
        (matrix_bytes(IMAGES[:2]), matrix_bytes(LABELS), "cat, byte 8: 3 labels, but .* holds 2"),
        (matrix_bytes(IMAGES), matrix_bytes(LABELS + 1), "cat, byte 20: label 5 is none of 0 … 4"),
        (matrix_bytes(IMAGES), matrix_bytes(LABELS - 1), "cat, byte 24: label -1 is none of"),
    ],
)
def test_what_is_wrong_has_its_place(
    images: bytes, labels: bytes, message: str, tmp_path: Path
) -> None:
    with pytest.raises(NewtritonError, match=message):
        read(tmp_path, images, labels)
