"""Records of CIFAR: planes of red, green and blue behind one label or two."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.data.formats.cifar import read


def test_a_record_is_labels_then_planes(tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    for number, path in enumerate(paths):
        record = np.repeat(np.array([50, 100, 150], np.uint8), 1024)
        path.write_bytes(bytes([number, 40 + number]) + record.tobytes())
    x, y = read(paths, (20, 100))
    assert x.shape == (2, 3, 32, 32)
    assert x[0, :, 5, 7].tolist() == [50, 100, 150]
    assert y.tolist() == [40, 41]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "byte 0: the file is empty"),
        (bytes(3073 + 9), "byte 3073: 9 bytes follow 1 whole records"),
        (bytes(2 * 3073) + b"\x0a" + bytes(3072), "byte 6146: label 10 is none of 0 … 9"),
    ],
)
def test_what_is_wrong_has_its_place(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(NewtritonError, match=message):
        read([tmp_path / "file"], (10,))


def test_both_labels_are_checked(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes([20, 0]) + bytes(3072))
    with pytest.raises(NewtritonError, match="byte 0: label 20 is none of 0 … 19"):
        read([tmp_path / "file"], (20, 100))
