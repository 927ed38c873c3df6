"""MATLAB 5 files give the arrays of numbers that are asked for, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.data.formats.matlab import read

X = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


def written(tmp_path: Path, values: dict[str, Any], **options: Any) -> Path:
    path = tmp_path / "file.mat"
    savemat(path, values, **options)
    return path


@pytest.mark.parametrize("do_compression", [False, True])
def test_arrays_are_as_they_were_written(do_compression: bool, tmp_path: Path) -> None:
    path = written(tmp_path, {"X": X, "other": {"a": 1}}, do_compression=do_compression)
    _, arrays = read(path, {"X": 3})
    assert list(arrays) == ["X"]
    assert np.array_equal(arrays["X"], X)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"a": X}, "X is struct"),
        (np.array([X, "text"], dtype=object), "X is cell"),
        ("text", "X is char"),
        (X[0], "X is uint8 with 2 axes where 3 of numbers are"),
    ],
)
def test_nothing_but_numbers_is_read(value: Any, said: str, tmp_path: Path) -> None:
    path = written(tmp_path, {"X": value})
    with pytest.raises(NewtritonError, match=rf"file\.mat, byte 128: {said}"):
        read(path, {"X": 3})
    with pytest.raises(NewtritonError, match="missing is nothing"):
        read(path, {"missing": 2})


def test_other_versions_are_told(tmp_path: Path) -> None:
    path = written(tmp_path, {"X": X[0]}, format="4")
    with pytest.raises(NewtritonError, match=r"byte 0: no MATLAB 5 file"):
        read(path, {"X": 2})
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(600))
    with pytest.raises(NewtritonError, match=r"byte 0: no MATLAB 5 file"):
        read(path, {"X": 2})
    data = bytearray(written(tmp_path, {"X": X}).read_bytes())
    data[124:126] = b"\x00\x02"
    path.write_bytes(data)
    with pytest.raises(NewtritonError, match="byte 124: version 0x0200 where 0x0100 is read"):
        read(path, {"X": 3})


def test_any_byte_may_be_wrong(tmp_path: Path) -> None:
    path = written(tmp_path, {"X": X}, do_compression=True)
    data = path.read_bytes()
    for place in range(116, len(data)):
        changed = bytearray(data)
        changed[place] ^= 0xFF
        path.write_bytes(changed)
        try:
            _, arrays = read(path, {"X": 3})
        except NewtritonError as error:
            assert ", byte " in str(error)
        else:
            assert arrays["X"].ndim == 3
