"""Data sets of which a file is damaged: one error says so, or they are read as the files are."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import joblib
import numpy as np
import torch
from PIL import Image
from scipy.io import savemat
from torch import Tensor

import newtriton as nt
from newtriton.runtime.data.faces import photographs
from newtriton.runtime.data.formats import svhn
from newtriton.runtime.data.formats.images import Images

from ...damage import bounded, damage
from .writers import WRITERS, write_cifar, write_idx, write_norb, write_svhn

DRAWN = np.random.default_rng(0).integers(0, 9, (400, 4096), np.uint8)


class Format(NamedTuple):
    """A format that is read.

    Attributes:
        write: writes a small data set into a folder.
        read: returns all that is in it.
        checked: whether checksums tell damage, so that what is read is what was written.
    """

    write: Callable[[Path], object]
    read: Callable[[Path], list[Tensor]]
    checked: bool = False


def _loaded(name: str, folder: Path) -> list[Tensor]:
    parts = nt.load(name, folder)
    assert all(len(x) == len(y) for x, y in parts)
    return [tensor[:] for part in parts for tensor in part]


def _of_set(name: str, write: Callable[[Path], object], checked: bool = False) -> Format:
    return Format(write, partial(_loaded, name), checked)


def _plain_svhn(folder: Path) -> None:
    write_svhn(folder)
    for path in folder.iterdir():
        x, y = svhn.read(path)
        values = {"X": x.transpose(2, 3, 1, 0), "y": np.where(y == 0, 10, y)[:, None]}
        savemat(path, values)


def _pngs(folder: Path) -> None:
    for i in range(3):
        Image.fromarray(DRAWN[i, :768].reshape(16, 16, 3)).save(folder / f"{i}.png")


FORMATS = {
    "idx": _of_set("fashion-mnist", partial(write_idx, zipped=False)),
    "idx.gz": _of_set("mnist", write_idx, checked=True),
    "cifar10": _of_set("cifar10", partial(write_cifar, classes=10)),
    "cifar100": _of_set("cifar100", partial(write_cifar, classes=100)),
    "svhn": _of_set("svhn", write_svhn, checked=True),
    "svhn, not zipped": _of_set("svhn", _plain_svhn),
    "smallnorb": _of_set("smallnorb", write_norb),
    "smallnorb.gz": _of_set("smallnorb", partial(write_norb, zipped=True), checked=True),
    "tiny-imagenet": _of_set("tiny-imagenet", WRITERS["tiny-imagenet"][1]),
    "imagenet-10": _of_set("imagenet-10", WRITERS["imagenet-10"][1]),
    "png": Format(_pngs, lambda folder: [Images([folder / f"{i}.png" for i in range(3)])[:]], True),
    "faces.mat": Format(
        lambda folder: savemat(folder / "olivettifaces.mat", {"faces": DRAWN.T}),
        lambda folder: [photographs(folder)],
    ),
    "faces, kept": Format(
        lambda folder: joblib.dump(DRAWN, folder / "olivetti_py3.pkz", compress=1),
        lambda folder: [photographs(folder)],
        checked=True,
    ),
}


@cache
def good(name: str) -> tuple[dict[str, bytes], list[Tensor]]:
    """The files of a format, and what is in them."""
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        FORMATS[name].write(folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        held = {str(path.relative_to(folder)): path.read_bytes() for path in files}
        return held, FORMATS[name].read(folder)


def trial(seed: int, folder: Path) -> str:
    """Damages a file of a data set, and reads it."""
    draw = np.random.default_rng(seed)
    name = [*FORMATS][seed % len(FORMATS)]
    held, whole = good(name)
    for file, data in held.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(data)
    texts = [file for file in held if file.endswith(".txt")]
    chosen = texts if texts and draw.random() < 0.5 else [*held]
    done = damage(draw, folder / chosen[draw.integers(len(chosen))])
    what = f"seed {seed}, {name}, {done}"
    try:
        with bounded(what):
            found = FORMATS[name].read(folder)
    except nt.NewtritonError as error:
        said = str(error)
        assert str(folder) in said, f"{what}: {said!r} names no file"
        assert len(said) < 2000 and "\n" not in said, f"{what}: {said!r} is no line"
        return f"{name}: refused"
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
    same = all(map(torch.equal, found, whole))
    assert same or not FORMATS[name].checked, f"{what}: silently other values"
    return f"{name}: as it was" if same else f"{name}: other data"
