"""What depends on neither parameters nor inputs: computed once, by PyTorch, as the graph is read.

The batch size may take part (a position for every sample, a mask that is expanded). So values are
computed at two batch sizes; they become leaves of the graph if they are the same for every sample.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import map_arg

from ..graph import ops
from ..graph.errors import NewtritonError
from ..graph.ir import N, Node, Shape, is_batched
from ..language.network import Scope
from .calls import Call
from .shapes import dimensions, is_of_batch, number

BATCHES = (2, 3)  # none is 1, at which a sample's axis and a broadcast one look alike
LARGE = 1e30  # for infinities, as those of masks: what is multiplied by 0 stays 0
SHAPE_ALONE = frozenset(
    f"aten::{name}"
    for name in (
        "zeros_like", "ones_like", "full_like", "empty_like",
        "new_zeros", "new_ones", "new_full", "new_empty", "new_empty_strided",
    )
)  # fmt: skip


@dataclass(frozen=True)
class Folded:
    """A value that depends on neither parameters nor inputs.

    Attributes:
        values: it at each of `BATCHES`, a tensor, a number or a list of such.
        meta: it without content, with symbolic sizes.
    """

    values: tuple[Any, Any]
    meta: Any

    @property
    def shape(self) -> Shape:
        """The shape of a tensor."""
        return dimensions(self.meta.shape)

    @property
    def tensor(self) -> Tensor:
        """The value, where the batch size has no part in it.

        Raises:
            NewtritonError: it has.
        """
        first, second = self.values
        if first.shape != second.shape or not torch.equal(first, second):
            raise NewtritonError("it needs a constant, and got one that depends on the batch size")
        return first


def folds(call: Call, known: Callable[[Call], bool]) -> bool:
    """Whether a call gives a constant.

    Args:
        call: a call of the exported graph.
        known: says which of its operands are constants.
    """
    schema = getattr(call.target, "_schema", None)
    if schema is not None and schema.name in SHAPE_ALONE:
        return True
    tags = getattr(call.target, "tags", ())
    return torch.Tag.nondeterministic_seeded not in tags and all(map(known, call.all_input_nodes))


def folded(call: Call, value: Callable[[Call], Folded | None]) -> Folded:
    """Returns what a call gives, from the values of its operands.

    Args:
        call: a call of the exported graph that `folds`.
        value: the values of constants; None for other nodes, of which the shape alone matters.
    """
    found = []
    for i, batch in enumerate(BATCHES):

        def given(node: Any, i: int = i, batch: int = batch) -> Any:
            known = value(node)
            return _like(node.meta["val"], batch) if known is None else known.values[i]

        args, kwargs = map_arg((call.args, call.kwargs), given)
        with torch.no_grad():
            found.append(call.target(*args, **kwargs))
    return Folded((found[0], found[1]), call.meta.get("val"))


def symbol(call: Call) -> Folded | None:
    """Returns the value of a symbolic size, or None for other nodes."""
    size = call.meta.get("val")
    symbolic = isinstance(size, (torch.SymInt, torch.SymFloat, torch.SymBool))
    if (symbolic and is_of_batch(size)) or isinstance(size, (int, float, bool)):
        first, second = (number(size, batch) for batch in BATCHES)
        return Folded((first, second), size)
    return None


def _like(meta: Any, batch: int) -> Any:
    """Returns a tensor of a value's shape, dtype and device, without content."""
    if not isinstance(meta, Tensor):
        return number(meta, batch)
    shape = [number(size, batch) for size in meta.shape]
    return torch.empty(shape, dtype=meta.dtype, device=meta.device)


def single(value: Folded) -> float | None:
    """Returns the number that all elements are, or None where they differ."""
    numbers = {_single(v) for v in value.values}
    return numbers.pop() if len(numbers) == 1 else None


def _single(value: Any) -> float | None:
    if not isinstance(value, Tensor):
        return float(value)
    if value.numel() == 0:
        return None
    first = value.flatten()[0]
    return float(first) if bool((value == first).all()) else None


def leaf(value: Folded, shape: Shape, scope: Scope) -> Node:
    """Returns a constant as a node of the graph.

    Args:
        value: the constant.
        shape: its shape as the graph knows it.
        scope: where it is needed.

    Raises:
        NewtritonError: it is another one for each sample.
    """
    if (alike := single(value)) is not None:
        return ops.broadcast(ops.const(finite(alike)), shape)
    axes = [i for i, d in enumerate(shape) if is_batched(d)]
    if not axes:
        return scope.constant(_finite(value.tensor))
    (axis,) = axes
    rows = of_every_sample(value, axis)
    split = (*shape[:axis], N, rows.shape[axis], *shape[axis + 1 :])
    spread = ops.broadcast(scope.constant(_finite(rows)), split, (axis,))
    return ops.reshape(spread, shape)


def of_every_sample(value: Folded, axis: int) -> Tensor:
    """Returns a constant's part of one sample, which all have; a sample's axis keeps what it has.

    Raises:
        NewtritonError: samples have different parts.
    """
    parts = [v.unflatten(axis, (n, -1)) for v, n in zip(value.values, BATCHES, strict=True)]
    first = parts[0].select(axis, 0)
    if not all(torch.equal(p, first.unsqueeze(axis).expand_as(p)) for p in parts):
        raise NewtritonError(
            "a constant has other values for each sample of a batch: samples are independent here"
        )
    return first


def finite(number: float) -> float:
    """Returns a number with ±`LARGE` for infinity."""
    return min(max(number, -LARGE), LARGE)


def _finite(tensor: Tensor) -> Tensor:
    """Returns a tensor without infinities."""
    if not tensor.is_floating_point():
        return tensor
    return tensor.clamp(-LARGE, LARGE) if bool(tensor.isinf().any()) else tensor
