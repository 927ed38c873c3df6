"""The cropped digits of SVHN (Netzer et al. 2011): MATLAB files of X and y."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from . import matlab

CLASSES = 10
CHANNELS = 3


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns images (N, 3, H, W) and their labels (N,), both uint8; the label 10 stands for 0.

    Raises:
        NewtritonError: the file is truncated, damaged or another one.
    """
    contents, arrays = matlab.read(path, {"X": 4, "y": 2})
    x, y = arrays["X"], arrays["y"]
    if x.dtype != np.uint8 or x.shape[2] != CHANNELS or 0 in x.shape:
        raise contents.damaged(
            matlab.HEADER, f"X is {x.dtype} of {x.shape} where bytes of (32, 32, 3, N) are expected"
        )
    if y.shape != (x.shape[3], 1):
        raise contents.damaged(
            matlab.HEADER, f"y has shape {y.shape} where X holds {x.shape[3]} images"
        )
    labels = y[:, 0]
    wrong = np.flatnonzero(~np.isin(labels, np.arange(1, CLASSES + 1)))
    if len(wrong):
        raise contents.damaged(
            matlab.HEADER,
            f"label {labels[wrong[0]]} of image {wrong[0]} is none of 1 … {CLASSES}",
        )
    return np.ascontiguousarray(x.transpose(3, 2, 0, 1)), (labels % CLASSES).astype(np.uint8)
