"""IDX files hold images and as many labels, or the byte is named where they do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.data.formats.idx import read_pair

from ..writers import idx_bytes

IMAGES = np.arange(4 * 28 * 28, dtype=np.uint8).reshape(4, 28, 28)
LABELS = np.array([3, 0, 9, 1], np.uint8)


def read(tmp_path: Path, images: bytes, labels: bytes) -> tuple[np.ndarray, np.ndarray]:
    (tmp_path / "images").write_bytes(images)
    (tmp_path / "labels").write_bytes(labels)
    return read_pair(tmp_path / "images", tmp_path / "labels")


def test_images_and_labels_are_as_they_were_written(tmp_path: Path) -> None:
    x, y = read(tmp_path, idx_bytes(IMAGES), idx_bytes(LABELS))
    assert np.array_equal(x, IMAGES[:, None])
    assert np.array_equal(y, LABELS)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (idx_bytes(LABELS), idx_bytes(LABELS), "images, byte 0: magic number 0x00000801"),
        (idx_bytes(IMAGES), idx_bytes(IMAGES), "labels, byte 0: magic number 0x00000803"),
        (idx_bytes(IMAGES[:3]), idx_bytes(LABELS), "labels, byte 4: 4 labels, but .* holds 3 im"),
        (idx_bytes(IMAGES), idx_bytes(LABELS + 6), r"labels, byte 10: label 15 is none of 0 … 9"),
        (idx_bytes(IMAGES[:0]), idx_bytes(LABELS), "images, byte 4: sizes .* no samples"),
        (idx_bytes(IMAGES)[:11], idx_bytes(LABELS), "images, byte 11: the file ends in its header"),
        (idx_bytes(IMAGES)[:2], idx_bytes(LABELS), "images, byte 2: the file ends in its header"),
    ],
)
def test_what_is_wrong_has_its_place(
    images: bytes, labels: bytes, message: str, tmp_path: Path
) -> None:
    with pytest.raises(NewtritonError, match=message):
        read(tmp_path, images, labels)
