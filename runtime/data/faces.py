"""FACES: the Olivetti faces turned and enlarged, after Hinton & Salakhutdinov (2006).

400 photographs of 40 people become 414 images each. The first 25 people are trained on, the last
ten tested on, as in the papers; the five between them are their validation set.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...compiler.graph.errors import NewtritonError
from .formats import matlab
from .formats.contents import Contents, damaged
from .samples import Samples

PEOPLE, PHOTOGRAPHS, PIXELS = 40, 10, 64
COPIES = 414
TURNED = 90.0  # degrees in either direction, at most
ENLARGED = (1.4, 1.8)
SIZE = 25
TRAINED, TESTED = slice(0, 25), slice(30, 40)  # people
FINER = 2  # points per pixel and axis that are averaged

MAT, CACHE = "olivettifaces.mat", "olivetti_py3.pkz"
SHAPE = (PEOPLE * PHOTOGRAPHS, PIXELS**2)
KINDS = {1: "u1", 4: "<f4", 8: "<f8"}  # of the kept pixels, by their bytes
WRAPPER = b"NumpyArrayWrapper"  # what joblib's header names


def faces(photographs: Tensor, copies: int = COPIES, seed: int = 0) -> tuple[Samples, Samples]:
    """Returns the training and the test images (N, 1, 25, 25), which are their own labels.

    A photograph is turned by an angle uniform in ±90° about its middle and enlarged by a factor
    uniform in 1.4 … 1.8; what then covers the frame of 64×64 pixels is subsampled to 25×25. From
    1.4 on, a turned frame stays inside the photograph.

    Args:
        photographs: the photographs (400, 64, 64), ten of each person after another.
        copies: the number of images that are made of each.
        seed: the seed of angles and factors.
    """
    generator = np.random.default_rng(seed)
    shape = (PEOPLE, PHOTOGRAPHS, copies)
    angles = torch.from_numpy(generator.uniform(-TURNED, TURNED, shape)).float()
    factors = torch.from_numpy(generator.uniform(*ENLARGED, shape)).float()
    by_person = photographs.reshape(PEOPLE, PHOTOGRAPHS, PIXELS, PIXELS)
    train, test = (
        _made(
            by_person[people].flatten(0, 1),
            angles[people].flatten(0, 1),
            factors[people].flatten(0, 1),
        )
        for people in (TRAINED, TESTED)
    )
    return Samples(train, train), Samples(test, test)


def _made(photographs: Tensor, angles: Tensor, factors: Tensor) -> Tensor:
    """Returns images (N·copies, 1, 25, 25) of photographs (N, 64, 64), those of one together."""
    made = [_turned(*of_one) for of_one in zip(photographs, angles, factors, strict=True)]
    return torch.cat(made)


def _turned(photograph: Tensor, angles: Tensor, factors: Tensor) -> Tensor:
    """Returns a photograph (64, 64) turned by angles and enlarged by factors (copies,)."""
    radians = angles * (math.pi / 180)
    cosine, sine = torch.cos(radians) / factors, torch.sin(radians) / factors
    zero = torch.zeros_like(cosine)
    matrices = torch.stack([cosine, -sine, zero, sine, cosine, zero], 1).reshape(-1, 2, 3)
    points = F.affine_grid(
        matrices, [len(angles), 1, FINER * SIZE, FINER * SIZE], align_corners=False
    )
    source = photograph.expand(len(angles), 1, PIXELS, PIXELS)
    fine = F.grid_sample(source, points, padding_mode="border", align_corners=False)
    return F.avg_pool2d(fine, FINER)


def found(root: Path | None) -> Path | None:
    """Returns the file with the photographs, None if there is none.

    Args:
        root: the folder of the file, scikit-learn's own unless given.
    """
    folder = home() if root is None else root
    paths = (folder / inner / name for inner in ("olivetti", "") for name in (MAT, CACHE))
    return next((path for path in paths if os.path.lexists(path)), None)


def home() -> Path:
    """Returns the folder in which scikit-learn keeps data."""
    return Path(os.environ.get("SCIKIT_LEARN_DATA", "~/scikit_learn_data")).expanduser()


def photographs(root: Path | None) -> Tensor:
    """Returns the photographs (400, 64, 64) with values in [0, 1], as scikit-learn has them.

    They are in the published `olivettifaces.mat`, or where scikit-learn keeps them, which is read
    as plain bytes: nothing is unpickled.

    Args:
        root: the folder of these files; scikit-learn's own unless given, where scikit-learn
            downloads them if they are missing.

    Raises:
        NewtritonError: a file is damaged, or there is none and it cannot be downloaded.
    """
    if root is not None and not os.path.isdir(root):
        raise NewtritonError(f"{root} is no folder with faces: it expects {MAT} or {CACHE} in it")
    path = found(root)
    if path is None and root is not None:
        raise _missing(root)
    if path is None:
        return _fetched()
    values = (_published(path) if path.name == MAT else _kept(path)).astype(np.float32)
    least, most = float(values.min()), float(values.max())
    if not least < most < math.inf:
        raise damaged(path, 0, f"pixels from {least} to {most}: get the file again")
    columns_first = torch.from_numpy((values - least) / (most - least))
    return columns_first.reshape(-1, PIXELS, PIXELS).mT.contiguous()


def _fetched() -> Tensor:
    """Returns the photographs that scikit-learn downloads."""
    from sklearn.datasets import fetch_olivetti_faces  # noqa: PLC0415 (slow to import)

    try:
        bunch: Any = fetch_olivetti_faces(data_home=home())
    except OSError as error:
        raise _missing(home(), f" ({error})") from error
    return torch.from_numpy(bunch.images)


def _missing(folder: Path, why: str = "") -> NewtritonError:
    """Returns the error that a folder has not the photographs."""
    return NewtritonError(
        f"{folder} has not the files of faces: it expects {MAT} or {CACHE} in that folder "
        "or in olivetti there; sklearn.datasets.fetch_olivetti_faces(data_home=…) "
        f"downloads the second{why}"
    )


def _published(path: Path) -> np.ndarray:
    """Returns the photographs of the published file as rows."""
    contents, arrays = matlab.read(path, {"faces": 2})
    if arrays["faces"].shape != SHAPE[::-1]:
        raise contents.damaged(
            matlab.HEADER,
            f"faces has shape {arrays['faces'].shape} where {SHAPE[::-1]} is expected",
        )
    return arrays["faces"].T


def _kept(path: Path) -> np.ndarray:
    """Returns the photographs that scikit-learn keeps as rows.

    The unzipped file is what joblib writes: a pickled header, the bytes of the array, a full stop.
    """
    contents = Contents.of(path, zipped=True)
    data, count = contents.data, math.prod(SHAPE)
    kind = KINDS.get((len(data) - 1) // count)
    start = len(data) - 1 - count * np.dtype(kind or "u1").itemsize
    header = data[: max(start, 0)].tobytes()
    if kind is None or WRAPPER not in header or data[-1:].tobytes() != b".":
        raise contents.damaged(0, f"not the {SHAPE} pixels that scikit-learn keeps: delete it")
    return data[start:-1].view(kind).reshape(SHAPE)
