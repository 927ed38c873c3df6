"""What is told of a run when it begins: model, optimizer, options, versions and machine."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from ...compiler.graph.calls import names_of, signature_of
from ...compiler.graph.errors import one_line, quoted
from ..model.compiled import Compiled
from ..remaking import PLAIN, Remade

NONE = "not given"  # what an argument was that has no default
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
        "optimizer": {"class": label(optimizer), **arguments_of(optimizer)},
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


def label(optimizer: object) -> str:
    """Returns what an optimizer is called, PyTorch's with it where there is one inside."""
    inner = getattr(optimizer, "optimizer", None)
    name = type(optimizer).__name__
    return name if inner is None else f"{name}({type(inner).__name__})"


def arguments_of(optimizer: object) -> dict[str, Any]:
    """Returns the arguments that an optimizer was made with, beside its model, as JSON has them."""
    if not isinstance(optimizer, Remade):
        return {}
    args, options = optimizer._made_of
    given = {**dict(zip(names_of(type(optimizer)), args, strict=False)), **options}
    model = repr(given.pop("model", None))  # which says on what device it is
    return {name: _plain(value, model) for name, value in given.items()}


def changed_arguments(
    before: Mapping[str, Any], optimizer: object
) -> dict[str, tuple[object, object]]:
    """Returns what an argument was and is, by name, of those that are others than before.

    Args:
        before: what `arguments_of` gave; an argument that was left out was its default.
        optimizer: the optimizer that there is now.
    """
    taken = signature_of(type(optimizer)).parameters.values()
    defaults = {p.name: _plain(p.default) for p in taken if p.default is not p.empty}
    old, new = {**defaults, **before}, {**defaults, **arguments_of(optimizer)}
    pairs = {name: (old.get(name, NONE), new.get(name, NONE)) for name in {**old, **new}}
    return {name: (was, now) for name, (was, now) in pairs.items() if was != now}


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


def _plain(value: Any, model: str = "") -> Any:
    """Returns a value as JSON has it, what JSON does not have as it is quoted.

    Args:
        value: the value.
        model: the text of a model, in whose place stands its name.
    """
    if isinstance(value, Mapping):
        return {str(name): _plain(part, model) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part, model) for part in value]
    if isinstance(value, type):
        return value.__name__
    if value is None or isinstance(value, PLAIN):
        return value
    return quoted(value).replace(model, "model") if model else quoted(value)
