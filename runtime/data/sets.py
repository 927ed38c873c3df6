"""Data sets by name: what is published, read from its files, and what is generated."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from ...compiler.graph.errors import NewtritonError
from ...compiler.graph.options import check_option
from . import faces as olivetti
from .curves import curves
from .folders import VARIABLE, Files, root_of
from .formats import cifar, idx, imagenet, norb, svhn
from .formats.images import Images
from .preprocessing import names_of, prepared
from .samples import Samples, digits, raw_digits

Parts = tuple[Samples, Samples]
Raw = tuple[np.ndarray | Images, np.ndarray]  # bytes of images, and labels
RawParts = tuple[Raw, Raw]
CURVES = (20000, 10000)  # in training and for testing (Hinton & Salakhutdinov 2006)


@dataclass(frozen=True)
class Published:
    """A data set that is read from files.

    Attributes:
        files: the files.
        read: returns images and labels, for training and for testing, from the paths.
        papers: the steps of the papers' preprocessing where this set has more than others.
    """

    files: Files
    read: Callable[..., RawParts]
    papers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def _samples(images: np.ndarray | Images, labels: np.ndarray) -> Samples:
    """Returns raw images as samples with int64 labels."""
    x = torch.from_numpy(images) if isinstance(images, np.ndarray) else images
    return Samples(x, torch.from_numpy(labels.astype(np.int64)))


def _generated(name: str, folder: Path | None) -> Parts:
    """Returns a set that is made here, with values in [0, 1]."""
    if name == "faces":
        return olivetti.faces(olivetti.photographs(folder))
    if name == "curves":
        return curves(CURVES[0], seed=0), curves(CURVES[1], seed=1)
    train, test = (Samples(part.x / 16, part.y) for part in raw_digits())
    return train, test


def _cifar(classes: tuple[int, ...], paths: tuple[Path, ...]) -> RawParts:
    """Reads CIFAR, whose last file is for testing."""
    return cifar.read(paths[:-1], classes), cifar.read(paths[-1:], classes)


def _named(*names: str) -> tuple[tuple[str, ...], ...]:
    """Returns files that have one name each."""
    return tuple((name,) for name in names)


def _zipped(*names: str) -> tuple[tuple[str, ...], ...]:
    """Returns files that may be gzipped."""
    return tuple((f"{name}.gz", name) for name in names)


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


NORB = "smallnorb-5x{}x9x18x6x2x96x96-{}ing-{}.mat"
TORONTO = "https://www.cs.toronto.edu/~kriz/cifar.html"
BINARY = "the Python version is pickled, which is not read; get the binary version"

PUBLISHED: dict[str, Published] = {
    "mnist": Published(
        _idx_files("http://yann.lecun.com/exdb/mnist/, gzipped or not", "MNIST/raw", "mnist"),
        lambda *paths: (idx.read_pair(*paths[:2]), idx.read_pair(*paths[2:])),
    ),
    "fashion-mnist": Published(
        _idx_files(
            "https://github.com/zalandoresearch/fashion-mnist, gzipped or not",
            "FashionMNIST/raw", "fashion-mnist", "fashion",
        ),
        lambda *paths: (idx.read_pair(*paths[:2]), idx.read_pair(*paths[2:])),
    ),
    "cifar10": Published(
        Files(
            _named(*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"),
            ("cifar-10-batches-bin", "cifar10/cifar-10-batches-bin", "cifar10"),
            f"cifar-10-binary.tar.gz of {TORONTO}, unpacked",
            (
                ("cifar-10-batches-py", BINARY), ("data_batch_1", BINARY),
                ("cifar-10-python.tar.gz", BINARY), ("cifar-10-binary.tar.gz", "unpack it"),
            ),
        ),
        lambda *paths: _cifar((10,), paths),
    ),
    "cifar100": Published(
        Files(
            _named("train.bin", "test.bin"),
            ("cifar-100-binary", "cifar100/cifar-100-binary", "cifar100"),
            f"cifar-100-binary.tar.gz of {TORONTO}, unpacked",
            (
                ("cifar-100-python", BINARY), ("cifar-100-python.tar.gz", BINARY),
                ("cifar-100-binary.tar.gz", "unpack it"),
            ),
        ),
        lambda *paths: _cifar((20, 100), paths),
    ),
    "svhn": Published(
        Files(
            _named("train_32x32.mat", "test_32x32.mat"),
            ("svhn", "SVHN"),
            "http://ufldl.stanford.edu/housenumbers/, format 2",
            (("train.tar.gz", "these are the full numbers; get format 2, the cropped digits"),),
        ),
        lambda *paths: (svhn.read(paths[0]), svhn.read(paths[1])),
    ),
    "smallnorb": Published(
        Files(
            _zipped(
                *(NORB.format(which, part, what)
                  for which, part in (("46789", "train"), ("01235", "test"))
                  for what in ("dat", "cat")),
            ),
            ("smallnorb", "smallNORB", "norb"),
            "https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/, gzipped or not",
        ),
        lambda *paths: (norb.read_pair(*paths[:2]), norb.read_pair(*paths[2:])),
        {"newton-cnn": ("max-pool", "min-max", "pixel-mean")},
    ),
    "tiny-imagenet": Published(
        Files(
            _named("wnids.txt", "train", "val"),
            ("tiny-imagenet-200", "tiny-imagenet"),
            "http://cs231n.stanford.edu/tiny-imagenet-200.zip, unpacked",
            (("tiny-imagenet-200.zip", "unpack it"),),
        ),
        imagenet.read_tiny,
    ),
    "imagenet-10": Published(
        Files(
            (("train",), ("val", "validation", "test")),
            ("imagenet-10", "imagenet10"),
            "ten classes of ImageNet of your choice, a folder of JPEG files for each",
        ),
        imagenet.read_classes,
    ),
}  # fmt: skip
GENERATED = ("digits", "curves", "faces")
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
    folder = root_of(root)
    if name in GENERATED:
        default = "unit-variance" if name == "faces" else "none"
        if name == "digits" and preprocessing is None:
            return digits()
        names = names_of(default if preprocessing is None else preprocessing)
        return prepared(*_generated(name, folder), names)
    one = PUBLISHED[name]
    names = names_of("none" if preprocessing is None else preprocessing, one.papers)
    if folder is None:
        raise NewtritonError(
            f"the files of {name} may be anywhere: pass root=, the folder that holds them, or set "
            f"the environment variable {VARIABLE}"
        )
    train, test = one.read(*one.files.need(name, folder))
    return prepared(_samples(*train), _samples(*test), names)


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
    if name == "faces":
        return olivetti.found(folder) is not None
    if name in GENERATED:
        return True
    return folder is not None and PUBLISHED[name].files.at(folder) is not None
