"""Checks of data before any work is done; every error names the value and the way out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...compiler.graph.errors import NewtritonError, ShapeError
from ...compiler.graph.ir import Node, Op, concrete, show
from ...compiler.language.loss import Loss
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
    traced: Traced, x: Any, dtype: torch.dtype, device: torch.device
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
        what = "inputs" if name == ALONE else f"inputs {name!r}"
        values = given[name]
        if node.type.kind == "int" and isinstance(values, Tensor) and values.dtype == torch.bool:
            values = values.long()
        _check_input(what, node, values, dtype, device)
        if node.type.kind == "float":
            demands.append(_finite(what, values))
        elif lookups := traced.lookups[name]:
            demands += [_is_row(what, lookup, values) for lookup in lookups]
            values = _moved_into(lookups, values)
        found[name] = values
    counts = {name: len(values) for name, values in found.items()}
    if len(set(counts.values())) > 1:
        sizes = ", ".join(f"{count} of {name!r}" for name, count in counts.items())
        raise ShapeError(f"the inputs have different numbers of samples, {sizes}: give as many")
    return found, demands


def _listed(names: Collection[str]) -> str:
    """Says what inputs there are."""
    return "one input" if ALONE in names else f"the inputs {', '.join(map(repr, names))}"


def _check_input(
    what: str, node: Node, x: object, dtype: torch.dtype, device: torch.device
) -> None:
    """Raises an error where a tensor is not what the leaf of an input stands for."""
    if not isinstance(x, Tensor):
        raise NewtritonError(f"{what} are {type(x).__name__}: give a torch.Tensor")
    expected = node.shape[1:]
    if x.ndim != len(expected) + 1 or tuple(x.shape[1:]) != expected:
        wanted = "×".join(["N", *map(str, expected)])
        raise ShapeError(f"{what} are {show(x.shape)}: the network was compiled for {wanted}")
    if x.shape[0] == 0:
        raise ShapeError("the batch is empty: give at least one sample")
    if node.type.kind == "int" and x.dtype != torch.int64:
        raise NewtritonError(f"{what} are {x.dtype}, the network takes int64: use .long()")
    if node.type.kind == "float" and x.dtype != dtype:
        raise NewtritonError(f"{what} are {x.dtype}, the model computes in {dtype}: x.to({dtype})")
    _check_device(what, x, device)


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

    Where a loss takes rows, int64 classes become one-hot rows. Classes out of range are moved into
    it: what runs before the demands have come over must not read elsewhere.

    Raises:
        ShapeError: there is not one label for each of `batch` samples, or one of another shape.
        NewtritonError: labels of another dtype or device.
    """
    if not isinstance(y, Tensor):
        raise NewtritonError(f"labels are {type(y).__name__}: give a torch.Tensor")
    _check_device("labels", y, device)
    criterion, outputs = traced.criterion, traced.z.shape[1]
    classes, name = criterion.classes(traced.z), criterion.title
    if y.shape[:1] != (batch,):
        raise ShapeError(f"{batch} inputs but labels of shape {tuple(y.shape)}")
    if traced.y.type.kind == "int" or y.dtype == torch.int64:
        if y.dtype != torch.int64 or y.ndim != 1:
            raise NewtritonError(
                f"{name} takes int64 classes of shape ({batch},), "
                f"got {y.dtype} of shape {tuple(y.shape)}"
            )
        rows = traced.y.type.kind != "int"
        taken = _one_hot(y, classes, dtype) if rows else y.clamp(0, classes - 1)
        return taken, [_in_range(y, classes, f"on {outputs} outputs {name}")]
    if y.dtype != dtype:
        raise NewtritonError(f"{name} takes labels of {dtype} (or int64 classes), got {y.dtype}")
    if tuple(y.shape) != (batch, outputs):
        raise ShapeError(f"{name} takes labels of shape ({batch}, {outputs}), got {tuple(y.shape)}")
    return y, list(_of_rows(criterion, y))


def _in_range(y: Tensor, classes: int, where: str) -> Demand:
    """Returns the demand that classes are those of the loss."""

    def sentence() -> str:
        low, high = int(y.min()), int(y.max())
        wrong = low if low < 0 else high
        return f"label {wrong} is out of range: {where} takes 0…{classes - 1}"

    return Demand(((y < 0) | (y >= classes)).any(), sentence)


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


def _one_hot(y: Tensor, classes: int, dtype: torch.dtype) -> Tensor:
    """Returns rows of zeros with a one at the class of each sample."""
    return (y.unsqueeze(1) == torch.arange(classes, device=y.device)).to(dtype)


def _check_device(what: str, x: Tensor, device: torch.device) -> None:
    """Raises an error where a tensor is on another device."""
    if x.device.type != device.type or (
        device.index is not None and x.device.index != device.index
    ):
        raise NewtritonError(
            f"{what} are on {x.device}, the model is on {device}: use .to({str(device)!r})"
        )
