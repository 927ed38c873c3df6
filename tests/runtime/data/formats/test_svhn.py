"""SVHN: images along the last axis, and 10 for the digit 0."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.data.formats.svhn import read

X = np.arange(32 * 32 * 3 * 4, dtype=np.uint64).astype(np.uint8).reshape(32, 32, 3, 4)
Y = np.array([[10], [1], [9], [3]], np.uint8)


def test_images_come_first_and_ten_is_the_digit_0(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"X": X, "y": Y})
    x, y = read(tmp_path / "a.mat")
    assert x[2, 1, 5, 7] == X[5, 7, 1, 2]
    assert y.tolist() == [0, 1, 9, 3]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"X": X.astype(float), "y": Y}, "X is float64"),
        ({"X": X[:, :, :2], "y": Y}, "X is uint8 of"),
        ({"X": X, "y": Y[:3]}, "y has shape .* where X holds 4 images"),
        ({"X": X, "y": Y - 1}, "label 0 of image 1 is none of 1 … 10"),
        ({"X": X, "y": Y + 0.5}, "label 10.5 of image 0 is none of"),
        ({"X": X}, "y is nothing"),
    ],
)
def test_another_file_is_told(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", arrays)
    with pytest.raises(NewtritonError, match=rf"a\.mat, byte 128: {message}"):
        read(tmp_path / "a.mat")
