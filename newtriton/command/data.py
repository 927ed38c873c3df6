"""The data that options describe: a set of the catalogue or of the user's."""

from __future__ import annotations

import inspect
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import torch

from ..compiler.graph.errors import NewtritonError
from ..compiler.language.trees import is_several
from ..runtime.data.lazy import Lazy
from ..runtime.data.samples import Samples
from ..runtime.data.sets import load
from .catalogue import DATA, DEFAULT
from .references import named, users_code


def add_data(command: ArgumentParser, data: str | None, use: str = "the data to train on") -> None:
    """Adds the options that describe data.

    Args:
        command: the command's parser.
        data: the data unless others are given; None for none.
        use: what the data are for.
    """
    shown = "" if data is None else f" {DEFAULT}"
    command.add_argument(
        "--data", default=data, metavar="NAME",
        help=f"{use}: {', '.join(DATA)}; or module:attribute of yours, a pair (training, "
        f"validation) of pairs (x, y) or of datasets, or a function that returns one{shown}",
    )  # fmt: skip
    add = command.add_argument
    add("--data-dir", type=Path, metavar="DIR", help="the folder of the data's files")
    add(
        "--preprocessing", metavar="NAMES",
        help="what is done to the data first, names separated by commas (default: the data's own)",
    )  # fmt: skip


def data(options: Namespace) -> tuple[Samples, Samples]:
    """Returns the samples for training and those for validation that the options name.

    Raises:
        NewtritonError: there are no such data, or they are no two pairs (x, y) or datasets.
    """
    found: Any = named(options.data, DATA, "--data")
    given = {"root": options.data_dir, "preprocessing": _split(options.preprocessing)}
    given = {name: value for name, value in given.items() if value is not None}
    takes = inspect.signature(found).parameters if callable(found) else {}
    for name in given.keys() - takes.keys():
        option = "--data-dir" if name == "root" else "--preprocessing"
        raise NewtritonError(f"{option} is not for {options.data}, which takes no {name}")
    if callable(found):
        with users_code(f"--data {options.data}"):
            found = found(**given)
    if not _is_samples(found):
        try:
            return load(found)
        except NewtritonError as error:
            raise NewtritonError(
                f"--data {options.data} gives no pair (training, validation), each of them a pair "
                f"(x, y) or a dataset: {error}"
            ) from error
    train, validation = found
    return _samples(train), _samples(validation)


def _is_samples(found: Any) -> bool:
    """Whether this is two pairs; else `load` makes samples of datasets, or says what is wrong."""
    several = isinstance(found, (tuple, list)) and len(found) == 2
    return several and all(isinstance(part, (tuple, list)) and len(part) == 2 for part in found)


def _split(names: str | None) -> list[str] | None:
    """Returns names that are separated by commas."""
    return None if names is None else [name.strip() for name in names.split(",")]


def _samples(part: Any) -> Samples:
    """Returns a pair (x, y) of tensors, or of arrays, as samples."""
    x, y = (v if isinstance(v, Lazy) or is_several(v) else torch.as_tensor(v) for v in part)
    return Samples(x, y)
