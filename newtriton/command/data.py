"""The data that options describe: a set of the catalogue or of the user's."""

from __future__ import annotations

import inspect
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import torch

from ..compiler.graph.errors import NewtritonError
from ..compiler.language.trees import is_several
from ..runtime.data.samples import Samples
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
        f"validation) of pairs (x, y), or a function that returns one{shown}",
    )  # fmt: skip
    command.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="the folder of the data's files"
    )


def data(options: Namespace) -> tuple[Samples, Samples]:
    """Returns the samples for training and those for validation that the options name.

    Raises:
        NewtritonError: there are no such data, or they are no two pairs (x, y).
    """
    found = named(options.data, DATA, "--data")
    if callable(found):
        found = _called(found, options)
    elif options.data_dir is not None:
        raise NewtritonError(f"--data-dir is not for {options.data}, which is no function")
    try:
        train, validation = found
        return _samples(train), _samples(validation)
    except (TypeError, ValueError) as error:
        raise NewtritonError(
            f"--data {options.data} gives {type(found).__name__}: give a pair (training, "
            f"validation) of pairs (x, y) of tensors ({error})"
        ) from error


def _called(make: Any, options: Namespace) -> Any:
    """Returns what a function gives, for the folder of the options where it takes one."""
    given = {}
    if options.data_dir is not None:
        if "root" not in inspect.signature(make).parameters:
            raise NewtritonError(f"--data-dir is not for {options.data}, which reads no files")
        given = {"root": options.data_dir}
    with users_code(f"--data {options.data}"):
        return make(**given)


def _samples(part: Any) -> Samples:
    """Returns a pair (x, y) of tensors, or of arrays, as samples."""
    x, y = part
    return Samples(x if is_several(x) else torch.as_tensor(x), torch.as_tensor(y))
