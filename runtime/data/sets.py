"""Data sets by name: what is published, read from its files, and what is generated."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...compiler.graph.calls import checked
from ...compiler.graph.errors import NewtritonError, one_line
from ...compiler.graph.options import check_mapping, check_option
from .curves import curves
from .datasets import from_dataset
from .faces import faces, found, photographs
from .folders import VARIABLE, root_of
from .formats.images import Images
from .preprocessing import names_of, prepared
from .published import PUBLISHED
from .samples import Samples, digits, raw_digits

Parts = tuple[Samples, Samples]
HELD_OUT = ("test", "validation", "valid", "val")
CURVES = (20000, 10000)  # in training and for testing (Hinton & Salakhutdinov 2006)

GENERATED = ("digits", "curves", "faces")
NAMES = (*GENERATED, *PUBLISHED)


@checked
def load(
    name: str | tuple[Any, Any] | Mapping[str, Any],
    root: str | os.PathLike[str] | None = None,
    *,
    preprocessing: str | Iterable[str] | None = None,
) -> tuple[Samples, Samples]:
    """Returns a data set by its name: the samples for training and those for testing.

    Images are (N, C, H, W) float32 with values byte/255, before preprocessing, and labels int64.
    docs/data.md lists the names, the files of each set, and its preprocessing.

    Args:
        name: "digits" and "curves" need no files; the others are read from their published files.
            Or a pair of datasets, or a dictionary with parts "train" and "test" or "validation":
            they become samples as `from_dataset` makes them.
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
    folder = root_of(root)
    if not isinstance(name, str):
        names = names_of("none" if preprocessing is None else preprocessing)
        train, test = map(from_dataset, _parts(name))
        return prepared(train, test, names) if names else (train, test)
    check_option("name", name, NAMES)
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
            f"the files of {name} may be anywhere: pass root= (--data-dir), the folder, or set "
            f"the environment variable {VARIABLE}"
        )
    train, test = one.read(*one.files.need(name, folder))
    return prepared(_samples(*train), _samples(*test), names)


@checked
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
        return found(folder) is not None
    if name in GENERATED:
        return True
    return folder is not None and PUBLISHED[name].files.at(folder) is not None


def _parts(datasets: Any) -> tuple[Any, Any]:
    """Returns the datasets for training and for testing."""
    if isinstance(datasets, Mapping):
        datasets = check_mapping("the datasets", datasets)
        held_out = next((part for part in HELD_OUT if part in datasets), None)
        if "train" in datasets and held_out is not None:
            return datasets["train"], datasets[held_out]
        raise NewtritonError(
            f"the datasets are {one_line(', '.join(datasets))}: give 'train' and one of "
            f"{', '.join(map(repr, HELD_OUT))}"
        )
    if isinstance(datasets, (tuple, list)) and len(datasets) == 2:
        return datasets[0], datasets[1]
    raise NewtritonError(
        f"name is a {type(datasets).__name__}: give a name, or a pair of datasets for training and "
        "testing; from_dataset makes samples of a single one"
    )


def _samples(images: np.ndarray | Images, labels: np.ndarray) -> Samples:
    """Returns raw images as samples with int64 labels."""
    x = torch.from_numpy(images) if isinstance(images, np.ndarray) else images
    return Samples(x, torch.from_numpy(labels.astype(np.int64)))


def _generated(name: str, folder: Path | None) -> Parts:
    """Returns a set that is made here, with values in [0, 1]."""
    if name == "faces":
        return faces(photographs(folder))
    if name == "curves":
        return curves(CURVES[0], seed=0), curves(CURVES[1], seed=1)
    train, test = (Samples(part.x / 16, part.y) for part in raw_digits())
    return train, test
