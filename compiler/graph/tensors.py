"""What a tensor must be that is given to newtriton; every error names it and the way out."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor

from .errors import NewtritonError


def check_tensor(what: str, x: Any) -> Tensor:
    """Returns a dense tensor of real numbers, whatever its device.

    Raises:
        NewtritonError: it is no tensor, sparse, nested or complex.
    """
    if not isinstance(x, Tensor):
        raise NewtritonError(f"{what} are {type(x).__name__}: give a torch.Tensor")
    if (fault := fault_of(x)) is not None:
        raise NewtritonError(f"{what} are {fault}")
    return x


def imported(module: str, name: str) -> Any:
    """Returns a class of a module that this process has imported; () where it has not.

    `isinstance` takes both: nothing is an instance of a class that nobody has imported.
    """
    return getattr(sys.modules.get(module), name, ())


def is_distributed(x: object) -> bool:
    """Whether a value is a DTensor."""
    return isinstance(x, imported("torch.distributed.tensor", "DTensor"))


def fault_of(x: Tensor) -> str | None:
    """Returns what keeps a tensor from being dense and real, with the way out; None if nothing."""
    if is_distributed(x):
        return "a DTensor: give the part that this rank has, x.to_local()"
    if x.is_nested:
        return "a nested tensor: give a tensor of one shape, e.g. by .to_padded_tensor(0.0)"
    if x.layout is not torch.strided:
        return f"a tensor with the layout {x.layout}: use .to_dense()"
    if x.is_complex():
        return f"{x.dtype}: give real numbers, e.g. x.real"
    return None
