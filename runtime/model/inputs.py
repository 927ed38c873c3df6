"""Checks of data before any work is done; every error names the value and the way out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from ...compiler.graph.errors import NewtritonError, ShapeError
from ...compiler.graph.ir import concrete, show
from ...compiler.language.loss import Loss
from ...compiler.language.losses import IGNORED, CrossEntropyLoss
from ...compiler.language.network import Traced
from ..reading import Array, finite, read


class Demand(NamedTuple):
    """What values must be; they are looked at where they are.

    Attributes:
        broken: whether they are not, a scalar on their device.
        sentence: makes the error's sentence, from the values again.
    """

    broken: Tensor
    sentence: Callable[[], str]


def read_checked(
    demands: Sequence[Demand], *numbers: Tensor, largest: Sequence[Tensor] = ()
) -> list[Array]:
    """Returns numbers as `read` does; whether demands are met comes over in the same transfer.

    Raises:
        NewtritonError: a demand is not met.
    """
    found = read(*(demand.broken for demand in demands), *numbers, largest=largest)
    for demand, broken in zip(demands, found, strict=False):
        if broken:
            raise NewtritonError(demand.sentence())
    return found[len(demands) :]


def check_inputs(
    traced: Traced, x: Tensor, dtype: torch.dtype, device: torch.device
) -> list[Demand]:
    """Returns what the values of x must be.

    Raises:
        ShapeError: it has not the network's shape, or no sample.
        NewtritonError: it is no tensor, or of another dtype or device.
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

    def sentence() -> str:
        bad = int((~torch.isfinite(x)).flatten(1).any(1).sum())
        return f"inputs have NaN or infinite values in {bad} of {len(x)} samples: clean the data"

    return [Demand(~finite(x), sentence)]


def check_labels(
    traced: Traced, y: Tensor, batch: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, list[Demand]]:
    """Returns labels as the loss takes them, and what their values must be.

    Where a loss takes numbers, int64 classes become one-hot rows, and those of a single output the
    numbers that they are. Classes out of range are moved into it: what runs before the demands have
    come over must not read elsewhere. Labels that do not count become −1.

    Raises:
        ShapeError: there is not one label for each of `batch` samples, or one of another shape.
        NewtritonError: labels of another dtype or device.
    """
    if not isinstance(y, Tensor):
        raise NewtritonError(f"labels are {type(y).__name__}: give a torch.Tensor")
    _check_device("labels", y, device)
    criterion, name = traced.criterion, traced.criterion.title
    if y.shape[:1] != (batch,):
        raise ShapeError(f"{batch} inputs but labels of shape {tuple(y.shape)}")
    shape = label_shape(traced, batch)
    if traced.y.type.kind == "int":
        if y.dtype != torch.int64 or tuple(y.shape) != shape:
            raise NewtritonError(
                f"{name} takes int64 classes of shape {shape}, got {y.dtype} of shape "
                f"{tuple(y.shape)}{_classes_hint(traced, y, batch)}"
            )
        return _classes(traced, y)
    outputs = concrete(traced.output.shape, batch)
    if y.dtype == torch.int64 and tuple(y.shape) == shape:
        if traced.rows.shape[-1] == 1:
            y = y.to(dtype).reshape(outputs)
        else:
            return _one_hot(traced, y, dtype)
    elif not y.is_floating_point():
        raise NewtritonError(
            f"{name} takes labels of {dtype} and shape {outputs}, or int64 classes of shape "
            f"{shape}, got {y.dtype} of shape {tuple(y.shape)}: use y.to({dtype}) for numbers"
        )
    if y.dtype != dtype:
        raise NewtritonError(f"{name} takes labels of {dtype} (or int64 classes), got {y.dtype}")
    if tuple(y.shape) != outputs:
        raise ShapeError(f"{name} takes labels of shape {outputs}, got {tuple(y.shape)}")
    return y.reshape(concrete(traced.y.shape, batch)), list(_of_rows(criterion, y))


def label_shape(traced: Traced, batch: int) -> tuple[int, ...]:
    """Returns the shape of int labels: one for each row of outputs."""
    axis, outputs = traced.class_axis, concrete(traced.output.shape, batch)
    return outputs if axis is None else (*outputs[:axis], *outputs[axis + 1 :])


def _classes_hint(traced: Traced, y: Tensor, batch: int) -> str:
    """Says how outputs come to fit labels of another shape, where that is known."""
    outputs = concrete(traced.output.shape, batch)
    if traced.class_axis != 1 and tuple(y.shape) == (batch, *outputs[2:]):
        return ": classes lie last, end the network in z.movedim(1, -1)"
    return ": end the network in Flatten()" if y.ndim == 1 and len(outputs) > 2 else ""


def _classes(traced: Traced, y: Tensor) -> tuple[Tensor, list[Demand]]:
    """Returns classes for a loss that takes them."""
    criterion = traced.criterion
    classes, ignored = criterion.classes(traced.rows), criterion.ignored(traced.z)
    taken = y.clamp(0, classes - 1)
    if ignored is not None:
        taken = torch.where(y == ignored, -1, taken)
    return taken.reshape(-1), [_in_range(traced, y, ignored)]


def _in_range(traced: Traced, y: Tensor, ignored: int | None = None) -> Demand:
    """Returns the demand that classes are those of the loss, or the label that does not count."""
    criterion, outputs = traced.criterion, traced.rows.shape[-1]
    classes = criterion.classes(traced.rows)
    wrong = (y < 0) | (y >= classes)
    if ignored is not None:
        wrong = wrong & (y != ignored)

    def sentence() -> str:
        low, high = int(y[wrong].min()), int(y[wrong].max())
        hint = ""
        if isinstance(criterion, CrossEntropyLoss) and low == IGNORED:
            hint = f"; {criterion.title}(ignore_index={IGNORED}) leaves it out"
        return (
            f"label {low if low < 0 else high} is out of range: on {outputs} outputs "
            f"{criterion.title} takes 0…{classes - 1}{hint}"
        )

    return Demand(wrong.any(), sentence)


def _of_rows(criterion: Loss, y: Tensor) -> Iterator[Demand]:
    """Yields the demands on labels that are rows of numbers."""
    name = criterion.title
    yield Demand(~finite(y), lambda: "labels have NaN or infinite values: clean the data")
    if criterion.span is not None:
        low, high = criterion.span
        yield Demand(
            ~((y >= low) & (y <= high)).all(),
            lambda: (
                f"{name} takes labels in [{low:g}, {high:g}], "
                f"got {float(y.min()):g} to {float(y.max()):g}"
            ),
        )
    if criterion.values is not None:
        values = criterion.values
        known = reduce(torch.logical_or, [y == value for value in values])
        yield Demand(
            ~known.all(),
            lambda: (
                f"{name} takes the labels {', '.join(f'{v:g}' for v in values)}, "
                f"got {float(y[~known][0]):g}"
            ),
        )


def _one_hot(traced: Traced, y: Tensor, dtype: torch.dtype) -> tuple[Tensor, list[Demand]]:
    """Returns zeros with a one at the class of each label, as the loss takes outputs."""
    axis = traced.class_axis or 0
    shape = [1] * len(traced.output.shape)
    shape[axis] = -1
    classes = torch.arange(traced.rows.shape[-1], device=y.device).reshape(shape)
    hot = (y.unsqueeze(axis) == classes).to(dtype)
    return hot.reshape(concrete(traced.y.shape, len(y))), [_in_range(traced, y)]


def _check_device(what: str, x: Tensor, device: torch.device) -> None:
    """Raises an error where a tensor is on another device."""
    if x.device.type != device.type or (
        device.index is not None and x.device.index != device.index
    ):
        raise NewtritonError(
            f"{what} are on {x.device}, the model is on {device}: use .to({str(device)!r})"
        )
