"""What is told of a run when it begins: model, optimizer, options, versions and machine."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from ...compiler.graph.errors import one_line, quoted
from ..model.compiled import Compiled
from ..remaking import PLAIN, Remade
from .runs import label

PACKAGES = ("newtriton", "torch", "triton", "numpy")


def about(model: Any, optimizer: Any, train: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what is told of a run, as JSON has it.

    Args:
        model: the model.
        optimizer: the optimizer.
        train: the data to train on.
        options: those of the call, and what the run folder has of the command line.
    """
    sizes = {"batches": _length(train), "batch_size": getattr(train, "batch_size", None)}
    return {
        "model": {name: value for name, value in _of_model(model).items() if value is not None},
        "optimizer": {"class": label(optimizer), **_given(optimizer)},
        "data": {name: value for name, value in sizes.items() if value is not None},
        "options": _plain(dict(options)),
        "versions": versions(),
        "machine": {"system": platform.platform(), "device": _device(model)},
    }


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages on which results depend."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _of_model(model: Any) -> dict[str, Any]:
    """Returns what a model is; of one that is not compiled, its class."""
    if not isinstance(model, Compiled):
        return {"class": type(model).__name__}
    backend = model.backend
    return {
        "network": one_line(str(model.net), 300),
        "loss": one_line(str(model.criterion), 300),
        "parameters": model.layout.numel,
        "weight_decay": model.weight_decay,
        "dtype": str(model.dtype).removeprefix("torch."),
        "backend": type(backend).__name__.removesuffix("Backend").lower(),
        "precision": backend.precision,
        "ranks": model.ranks.size,
    }


def _given(optimizer: Any) -> dict[str, Any]:
    """Returns the arguments that an optimizer was made with, beside its model."""
    if not isinstance(optimizer, Remade):
        return {}
    return _plain(optimizer._made_of[1])


def _device(model: Any) -> str:
    """Returns the name of the device that a model is on."""
    device = getattr(model, "device", torch.device("cpu"))
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def _length(data: Any) -> int | None:
    """Returns how many batches data say they have."""
    try:
        return len(data)
    except Exception:  # of a user's own class
        return None


def _plain(value: Any) -> Any:
    """Returns a value as JSON has it, what JSON does not have as it is quoted."""
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, type):
        return value.__name__
    return value if value is None or isinstance(value, PLAIN) else quoted(value)
