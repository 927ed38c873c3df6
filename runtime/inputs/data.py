"""Checks of data before any work is done; every error names the value and the way out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...compiler.graph.errors import NewtritonError, ShapeError, quoted
from ...compiler.graph.ir import Node, Op, concrete, show
from ...compiler.graph.tensors import check_tensor
from ...compiler.language.loss import Loss
from ...compiler.language.losses import IGNORED, CrossEntropyLoss
from ...compiler.language.network import Lookup, Traced
from ...compiler.language.trees import ALONE, named
from ..reading import Array, finite, read


class Demand(NamedTuple):
    """What values must be; they are looked at where they are.

    Attributes:
        broken: whether they are not, a scalar on their device.
        sentence: makes the error's sentence, from the values again.
    """

    broken: Tensor
    sentence: Callable[[], str]


class Checked(NamedTuple):
    """A batch whose shapes, dtypes and devices are right.

    Attributes:
        inputs: the inputs by name, as programs read them.
        labels: the labels as the loss takes them; None where none are given.
        demands: what the values must be besides.
        batch: the number of samples.
    """

    inputs: dict[str, Tensor]
    labels: Tensor | None
    demands: list[Demand]
    batch: int


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


def check_batch(
    traced: Traced, x: Any, y: Tensor | None, dtype: torch.dtype, device: torch.device
) -> Checked:
    """Returns a batch as programs read it, and what its values must be.

    Programs may run on data before it is known whether these demands are met; nothing that they
    give may be used.

    Raises:
        ShapeError: data or labels have another shape than the network's.
        NewtritonError: another dtype or device, or a batch of which batch norm cannot take
            statistics.
    """
    inputs, demands = check_inputs(traced, x, dtype, device, traced.part is not None)
    batch = len(next(iter(inputs.values())))
    if traced.part is None:
        check_statistics(traced, batch)
    if y is None:
        return Checked(inputs, None, demands, batch)
    labels, more = check_labels(traced, y, batch, dtype, device)
    return Checked(inputs, labels, demands + more, batch)


def check_statistics(traced: Traced, samples: int) -> None:
    """Raises an error where batch norm cannot take statistics of so many samples."""
    for name, running in traced.running.items():
        if traced.training and samples * running.positions == 1:
            raise NewtritonError(
                f"{name}: one value per channel has no variance: give at least 2 samples"
            )


def check_inputs(
    traced: Traced, x: Any, dtype: torch.dtype, device: torch.device, empty: bool = False
) -> tuple[dict[str, Tensor], list[Demand]]:
    """Returns the inputs by name as programs read them, and what their values must be.

    Raises:
        ShapeError: one has not the network's shape, or another number of samples, or none.
        NewtritonError: one is missing, no tensor, or of another dtype or device.
    """
    given, expected = named(x), traced.inputs
    if given.keys() != expected.keys():
        raise NewtritonError(
            f"the network takes {_listed(expected)}, got {_listed(given)}: give "
            + ("one tensor" if ALONE in expected else "all of them, in a tuple or by their names")
        )
    found, demands = dict[str, Tensor](), list[Demand]()
    for name, node in expected.items():
        what = "inputs" if name == ALONE else f"inputs {quoted(name)}"
        values = given[name]
        if node.type.kind == "int" and isinstance(values, Tensor) and values.dtype == torch.bool:
            values = values.long()
        _check_input(what, node, values, dtype, device, empty)
        if node.type.kind == "float":
            demands.append(_finite(what, values))
        elif lookups := traced.lookups[name]:
            demands += [_is_row(what, lookup, values) for lookup in lookups]
            values = _moved_into(lookups, values)
        found[name] = values
    counts = {name: len(values) for name, values in found.items()}
    if len(set(counts.values())) > 1:
        sizes = ", ".join(f"{count} of {quoted(name)}" for name, count in counts.items())
        raise ShapeError(f"the inputs have different numbers of samples, {sizes}: give as many")
    return found, demands


def _listed(names: Collection[str]) -> str:
    """Says what inputs there are."""
    return "one input" if ALONE in names else f"the inputs {', '.join(map(quoted, names))}"


def _check_input(
    what: str, node: Node, x: object, dtype: torch.dtype, device: torch.device, empty: bool
) -> None:
    """Raises an error where a tensor is not what the leaf of an input stands for."""
    x = check_tensor(what, x)
    expected = node.shape[1:]
    if x.ndim != len(expected) + 1 or tuple(x.shape[1:]) != expected:
        wanted = "×".join(["N", *map(str, expected)])
        raise ShapeError(f"{what} are {show(x.shape)}: the network was compiled for {wanted}")
    if x.shape[0] == 0 and not empty:
        raise ShapeError("the batch is empty: give at least one sample")
    if node.type.kind == "int" and x.dtype != torch.int64:
        raise NewtritonError(f"{what} are {x.dtype}, the network takes int64: use .long()")
    if node.type.kind == "float" and x.dtype != dtype:
        raise NewtritonError(f"{what} are {x.dtype}, the model computes in {dtype}: x.to({dtype})")
    check_device(f"{what} are", x, device)


def _finite(what: str, x: Tensor) -> Demand:
    """Returns the demand that all values are finite."""

    def sentence() -> str:
        bad = int((~torch.isfinite(x)).reshape(len(x), -1).any(1).sum())
        return f"{what} have NaN or infinite values in {bad} of {len(x)} samples: clean the data"

    return Demand(~finite(x), sentence)


def _viewed(node: Node, x: Tensor, batch: int) -> Tensor:
    """Returns the part of an input that a view of its leaf is."""
    if node.op is Op.INPUT:
        return x
    x = _viewed(node.inputs[0], x, batch)
    if node.op is Op.TRANSPOSE:
        return x.permute(node["order"])
    if node.op is Op.SLICE:
        return x.narrow(node["axis"], node["start"], node["stop"] - node["start"])
    return x.reshape(concrete(node.shape, batch))


def _is_row(what: str, lookup: Lookup, x: Tensor) -> Demand:
    """Returns the demand that numbers are those of rows of a table."""
    numbers, rows = _viewed(lookup.index, x, len(x)), lookup.rows

    def sentence() -> str:
        low, high = int(numbers.min()), int(numbers.max())
        wrong = low if low < 0 else high
        return (
            f"{what} have {wrong}, which is out of range: a table of {rows} rows takes 0…{rows - 1}"
        )

    return Demand(((numbers < 0) | (numbers >= rows)).any(), sentence)


def _moved_into(lookups: Sequence[Lookup], x: Tensor) -> Tensor:
    """Returns numbers moved into the range of their tables: nothing is read elsewhere."""
    x = x.clone()
    for lookup in lookups:
        numbers = _viewed(lookup.index, x, len(x))
        numbers.copy_(numbers.clamp(0, lookup.rows - 1))
    return x


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
    y = check_tensor("labels", y)
    check_device("labels are", y, device)
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
        hint = ": give y.unsqueeze(-1)" if (*y.shape, 1) == outputs else ""
        raise ShapeError(f"{name} takes labels of shape {outputs}, got {tuple(y.shape)}{hint}")
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
    if y.ndim == 1 and len(outputs) > 2:
        return ": end the network in Flatten()"
    shape, whole = label_shape(traced, batch), not (y.is_floating_point() or y.is_complex())
    if not y.is_complex() and tuple(y.shape) == shape:
        return ": give y.long()"
    if whole and tuple(y.shape) == (*shape, 1):
        return ": give y.squeeze(-1).long()"
    if tuple(y.shape) == outputs:
        axis = traced.class_axis
        return f": give y.argmax({axis}) for one-hot rows; several classes need BCEWithLogitsLoss"
    return ""


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


def check_device(what: str, x: Tensor, device: torch.device) -> None:
    """Raises an error where a tensor is on another device."""
    if x.device.type != device.type or (
        device.index is not None and x.device.index != device.index
    ):
        raise NewtritonError(
            f"{what} on {x.device}, the model is on {device}: use .to({str(device)!r})"
        )
