"""Folders of JPEG files by class: Tiny ImageNet and classes of ImageNet.

Classes are numbered in the order of their names, as torchvision's ImageFolder does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ....compiler.graph.errors import NewtritonError
from ...disk import read, unreadable
from .contents import damaged
from .images import Images

TEXT = 1 << 24  # bytes: the lists of the published set have half a million
ENDINGS = (".jpeg", ".jpg")
PLAIN = re.compile(r"\w[\w.-]*")  # a name that leads nowhere else
SIDE = 224  # of ImageNet's images, after resizing and cropping

Labelled = list[tuple[Path, int]]
Part = tuple[Images, np.ndarray]


def read_tiny(words: Path, train: Path, validation: Path) -> tuple[Part, Part]:
    """Returns the labelled parts of Tiny ImageNet: images and labels for training and testing.

    Args:
        words: `wnids.txt`, a class in each line.
        train: the folder with `CLASS/images/*.JPEG`.
        validation: the folder with `images` and `val_annotations.txt`, or with folders as `train`.

    Raises:
        NewtritonError: a file is missing, damaged, or names something outside its folder.
    """
    classes = sorted({line[0] for _, line in _lines(words, 1)})
    annotations = validation / "val_annotations.txt"
    held_out = (
        list(_annotated(annotations, classes))
        if os.path.lexists(annotations)
        else list(_in_folders(validation, classes))
    )
    return _part(list(_in_folders(train, classes)), None), _part(held_out, None)


def read_classes(train: Path, validation: Path) -> tuple[Part, Part]:
    """Returns both parts of a set with a folder of images for each class, 3×224×224.

    Raises:
        NewtritonError: the parts have other classes, or a folder has no images.
    """
    classes, held_out = (
        sorted(e.name for e in _entries(folder) if os.path.isdir(e.path))
        for folder in (train, validation)
    )
    if classes != held_out or not classes:
        raise NewtritonError(
            f"{train} has the classes {', '.join(classes) or 'none'} and {validation} has "
            f"{', '.join(held_out) or 'none'}: give both a folder of JPEG files for each class"
        )
    return (
        _part(list(_in_folders(train, classes)), SIDE),
        _part(list(_in_folders(validation, classes)), SIDE),
    )


def _part(labelled: Labelled, side: int | None) -> Part:
    """Returns images, which are read when they are asked for, and their labels."""
    paths, labels = zip(*labelled, strict=True)
    return Images(paths, side), np.array(labels)


def _in_folders(root: Path, classes: Sequence[str]) -> Iterator[tuple[Path, int]]:
    """Yields the JPEG files of every class with its number, in the order of their names."""
    for number, name in enumerate(classes):
        folder = root / name / "images" if os.path.isdir(root / name / "images") else root / name
        found = _images(folder)
        if not found:
            raise NewtritonError(f"{root / name} has no JPEG files: get the data set again")
        yield from ((folder / file, number) for file in found)


def _images(folder: Path) -> list[str]:
    """Returns the names of the JPEG files in a folder, in their order."""
    return sorted(e.name for e in _entries(folder) if e.name.lower().endswith(ENDINGS))


def _annotated(path: Path, classes: Sequence[str]) -> Iterator[tuple[Path, int]]:
    """Yields the files that annotations name, each with the number of its class."""
    numbers = {name: number for number, name in enumerate(classes)}
    folder = path.parent / "images"
    left = {*_images(folder)}
    for offset, (file, name) in _lines(path, 2):
        if name not in numbers:
            raise damaged(
                path, offset, f"class {name[:40]!r} is none of the {len(classes)} classes"
            )
        if file not in left:
            raise damaged(path, offset, f"{file:.40} is none of {folder}, or is there twice")
        left.remove(file)
        yield folder / file, numbers[name]
    if left:
        raise damaged(path, 0, f"{len(left)} files of {folder} are missing, {min(left)} for one")


def _lines(path: Path, number: int) -> Iterator[tuple[int, list[str]]]:
    """Yields the offset of each line that is not empty, and its first words.

    Raises:
        NewtritonError: there is none, or a word is no plain name.
    """
    offset, some = 0, False
    for line in read(path, TEXT).splitlines(keepends=True):
        words = line.decode("ascii", "replace").split()[:number]
        if words:
            some = True
            if len(words) < number or not all(PLAIN.fullmatch(word) for word in words):
                what = f"the line begins with {words!s:.80}, which is not {number} plain names"
                raise damaged(path, offset, what)
            yield offset, words
        offset += len(line)
    if not some:
        raise damaged(path, 0, "the file is empty: get it again")


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Returns what a folder holds.

    Raises:
        NewtritonError: it cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise unreadable(folder, error) from error
