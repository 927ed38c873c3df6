"""Data sets by name: what is published, read from its files, and what is generated."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ...compiler.graph.errors import NewtritonError
from ...compiler.graph.options import check_option
from . import idx
from .curves import curves
from .folders import VARIABLE, Files, root_of
from .preprocessing import names_of, prepared
from .samples import Samples, digits, raw_digits

Parts = tuple[Samples, Samples]
CURVES = (20000, 10000)  # in training and for testing (Hinton & Salakhutdinov 2006)


@dataclass(frozen=True)
class Published:
    """A data set that is read from files.

    Attributes:
        files: the files.
        read: makes raw samples, for training and testing, from their paths.
        default: the preprocessing unless another is asked for.
    """

    files: Files
    read: Callable[..., Parts]
    default: str = "none"


def _samples(images: np.ndarray, labels: np.ndarray) -> Samples:
    """Returns arrays as samples with int64 labels."""
    return Samples(torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64)))


def _unit_digits() -> Parts:
    """Returns the digits with pixels in [0, 1]."""
    train, test = (Samples(part.x / 16, part.y) for part in raw_digits())
    return train, test


def _idx(*paths: Path) -> Parts:
    """Reads MNIST, or what has its format."""
    return _samples(*idx.read_pair(*paths[:2])), _samples(*idx.read_pair(*paths[2:]))


def _idx_files(source: str, *folders: str) -> Files:
    """Returns the files of MNIST, and of what has its format."""
    names = [f"{part}-{what}" for part in ("train", "t10k")
             for what in ("images-idx3-ubyte", "labels-idx1-ubyte")]  # fmt: skip
    spelled = [
        tuple(
            f"{stem}{end}" for stem in (name, name.replace("-idx", ".idx")) for end in ("", ".gz")
        )
        for name in names
    ]
    return Files(tuple((s[1], s[0], *s[2:]) for s in spelled), folders, source)


PUBLISHED: dict[str, Published] = {
    "mnist": Published(
        _idx_files("http://yann.lecun.com/exdb/mnist/, gzipped or not", "MNIST/raw", "mnist"),
        _idx,
    ),
    "fashion-mnist": Published(
        _idx_files(
            "https://github.com/zalandoresearch/fashion-mnist, gzipped or not",
            "FashionMNIST/raw", "fashion-mnist", "fashion",
        ),
        _idx,
    ),
}  # fmt: skip
GENERATED = ("digits", "curves")
NAMES = (*GENERATED, *PUBLISHED)


def load(
    name: str,
    root: str | os.PathLike[str] | None = None,
    *,
    preprocessing: str | Iterable[str] | None = None,
) -> tuple[Samples, Samples]:
    """Returns a data set by its name, the samples for training and those for testing.

    Images are (N, C, H, W) float32 with values byte/255, before preprocessing, and labels int64.
    docs/data.md lists the names, the files of each set, and its preprocessing.

    Args:
        name: "digits" and "curves" need no files; the others are read from their published files.
        root: the folder that holds these files, or holds the set's own folder; that in the
            environment variable NEWTRITON_DATA unless given.
        preprocessing: the name of a preprocessing, or names in the order in which they apply; the
            set's own unless given, "none" for the values as they are.

    Raises:
        NewtritonError: a name is unknown, a file is missing, truncated, damaged or another one.

    Examples:
        >>> import newtriton as nt
        >>> train, test = nt.load("digits")
        >>> tuple(train.x.shape), tuple(test.x.shape)
        ((1437, 1, 8, 8), (360, 1, 8, 8))
    """
    check_option("name", name, NAMES)
    names = None if preprocessing is None else names_of(preprocessing)
    if name == "digits":
        return digits() if names is None else prepared(*_unit_digits(), names)
    if name == "curves":
        train, test = (curves(count, seed) for seed, count in enumerate(CURVES))
        return (train, test) if not names else prepared(train, test, names)
    one = PUBLISHED[name]
    folder = root_of(root)
    if folder is None:
        raise NewtritonError(
            f"the files of {name} may be anywhere: pass root=, the folder that holds them, or set "
            f"the environment variable {VARIABLE}"
        )
    parts = one.read(*one.files.need(name, folder))
    return prepared(*parts, names_of(one.default) if names is None else names)


def available(name: str, root: str | os.PathLike[str] | None = None) -> bool:
    """Whether `load` finds the files of a data set; it does not say whether they are whole.

    Args:
        name: the name of the data set.
        root: the folder that `load` would be given.

    Raises:
        NewtritonError: the name is unknown.

    Examples:
        >>> import newtriton as nt
        >>> nt.available("digits"), nt.available("mnist", "nowhere")
        (True, False)
    """
    check_option("name", name, NAMES)
    folder = root_of(root)
    if name in GENERATED:
        return True
    return folder is not None and PUBLISHED[name].files.at(folder) is not None
