"""Checks of data before any work is done; every error names the value and the way out."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...compiler.graph.errors import NewtritonError, ShapeError
from ...compiler.graph.ir import show
from ...compiler.language.network import Traced


def check_inputs(traced: Traced, x: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Returns x itself.

    Raises:
        ShapeError: it has not the network's shape, or no sample.
        NewtritonError: it is no tensor, of another dtype or device, or not finite.
    """
    if not isinstance(x, Tensor):
        raise NewtritonError(f"inputs are {type(x).__name__}: give a torch.Tensor")
    expected = tuple(traced.x.shape[1:])
    if x.ndim != len(expected) + 1 or tuple(x.shape[1:]) != expected:
        raise ShapeError(
            f"inputs are {show(x.shape)}: the network was compiled for N×{show(expected)}"
        )
    if x.shape[0] == 0:
        raise ShapeError("the batch is empty: give at least one sample")
    if x.dtype != dtype:
        raise NewtritonError(f"inputs are {x.dtype}, the model computes in {dtype}: x.to({dtype})")
    _check_device("inputs", x, device)
    if not torch.isfinite(x).all():
        bad = int((~torch.isfinite(x)).flatten(1).any(1).sum())
        raise NewtritonError(
            f"inputs have NaN or infinite values in {bad} of {len(x)} samples: clean the data"
        )
    return x


def check_labels(
    traced: Traced, y: Tensor, batch: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Returns labels as the loss takes them; int64 classes become one-hot rows if it takes rows.

    Raises:
        ShapeError: there is not one label for each of `batch` samples, or one of another shape.
        NewtritonError: labels of another dtype or device, out of range, or not finite.
    """
    if not isinstance(y, Tensor):
        raise NewtritonError(f"labels are {type(y).__name__}: give a torch.Tensor")
    _check_device("labels", y, device)
    criterion, outputs = traced.criterion, traced.z.shape[1]
    classes, name = criterion.classes(traced.z), type(criterion).__name__
    if y.shape[:1] != (batch,):
        raise ShapeError(f"{batch} inputs but labels of shape {tuple(y.shape)}")
    if traced.y.type.kind == "int" or y.dtype == torch.int64:
        if y.dtype != torch.int64 or y.ndim != 1:
            raise NewtritonError(
                f"{name} takes int64 classes of shape ({batch},), "
                f"got {y.dtype} of shape {tuple(y.shape)}"
            )
        low, high = int(y.min()), int(y.max())
        if low < 0 or high >= classes:
            wrong = low if low < 0 else high
            raise NewtritonError(
                f"label {wrong} is out of range: on {outputs} outputs {name} takes 0…{classes - 1}"
            )
        if traced.y.type.kind == "int":
            return y
        y = _one_hot(y, classes, dtype)
    if y.dtype != dtype:
        raise NewtritonError(f"{name} takes labels of {dtype} (or int64 classes), got {y.dtype}")
    if tuple(y.shape) != (batch, outputs):
        raise ShapeError(f"{name} takes labels of shape ({batch}, {outputs}), got {tuple(y.shape)}")
    if not torch.isfinite(y).all():
        raise NewtritonError("labels have NaN or infinite values: clean the data")
    low, high = criterion.span or (-math.inf, math.inf)
    if not ((y >= low) & (y <= high)).all():
        raise NewtritonError(
            f"{name} takes labels in [{low:g}, {high:g}], "
            f"got {float(y.min()):g} to {float(y.max()):g}"
        )
    if criterion.values is not None:
        known = torch.isin(y, y.new_tensor(criterion.values))
        if not known.all():
            raise NewtritonError(
                f"{name} takes the labels {', '.join(f'{v:g}' for v in criterion.values)}, "
                f"got {float(y[~known][0]):g}"
            )
    return y


def _one_hot(y: Tensor, classes: int, dtype: torch.dtype) -> Tensor:
    """Returns rows of zeros with a one at the class of each sample."""
    return torch.nn.functional.one_hot(y, classes).to(dtype)


def _check_device(what: str, x: Tensor, device: torch.device) -> None:
    """Raises an error where a tensor is on another device."""
    if x.device.type != device.type or (
        device.index is not None and x.device.index != device.index
    ):
        raise NewtritonError(
            f"{what} are on {x.device}, the model is on {device}: use .to({str(device)!r})"
        )
