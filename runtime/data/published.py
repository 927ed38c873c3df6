"""Data sets that are published: their files, and what reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .folders import Files
from .formats import cifar, idx, imagenet, norb, svhn
from .formats.images import Images

Raw = tuple[np.ndarray | Images, np.ndarray]  # bytes of images, and labels
RawParts = tuple[Raw, Raw]


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
