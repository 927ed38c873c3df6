"""One call of an exported graph as rules see it: its operands as nodes, and the shape it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..graph import ops, scalar
from ..graph.ir import Dim, Node, Shape, is_batched
from ..graph.scalar import Expr, var
from ..language.network import Scope
from .calls import Call, is_call
from .folding import Folded, finite, leaf, single
from .shapes import dimension, dimensions

Rule = Callable[..., Any]  # takes a site, then operands and options as the op's schema has them
Value = Any  # a node, a constant, a number or another option, or a list of those


@dataclass(frozen=True)
class Site:
    """A call that is built.

    Attributes:
        call: the call of the exported graph.
        scope: what gives parameters, statistics, constants and random numbers.
        buffers: the names of the buffers that training changes, by the names of the graph's inputs.
        momenta: the momentum of each batch norm, by its path.
    """

    call: Call
    scope: Scope
    buffers: Mapping[str, str]
    momenta: Mapping[str, float | None]

    @property
    def overload(self) -> str:
        """The name of the op's overload."""
        return self.call.target._overloadname

    def changing(self, i: int) -> str | None:
        """Returns the name of the buffer that operand i is, if training changes it."""
        operand = self.call.args[i] if i < len(self.call.args) else None
        return self.buffers.get(operand.name) if is_call(operand) else None

    @property
    def meta(self) -> Any:
        """The value without content that PyTorch found for the call; of several, the first."""
        meta = self.call.meta["val"]
        return meta[0] if isinstance(meta, (tuple, list)) else meta

    @property
    def shape(self) -> Shape:
        """The shape of the call's value, of several the first's."""
        return dimensions(self.meta.shape)

    @property
    def shapes(self) -> list[Shape]:
        """The shapes of the call's values."""
        return [dimensions(meta.shape) for meta in self.call.meta["val"]]

    @property
    def path(self) -> str:
        """The place of the module in which the call stands."""
        stack = self.call.meta.get("nn_module_stack") or {}
        return [*stack.values()][-1][0] if stack else ""

    def node(self, value: Value) -> Node:
        """Returns a value as a node; a constant becomes a leaf."""
        if isinstance(value, Node):
            return value
        if isinstance(value, Folded):
            return leaf(value, value.shape, self.scope)
        return ops.const(finite(float(value)))

    def map(self, function: Callable[..., Expr], *values: Value) -> Node:
        """Returns a function of each element, in the call's shape, with PyTorch's broadcasting.

        Args:
            function: from an expression for each value to that of the result.
            values: the operands; those that are one number become part of the expression.
        """
        operands: list[Node] = []
        given: list[Expr] = []
        for value in values:
            number = number_of(value)
            if number is not None:
                given.append(number)
                continue
            given.append(var(len(operands)))
            operands.append(spread(self.node(value), self.shape))
        expr = function(*given)
        if not scalar.operands(expr):
            return ops.broadcast(ops.const(expr), self.shape)
        return ops.map_(expr, *operands)


def number_of(value: Value) -> Expr | None:
    """Returns the expression of a value that is one number, perhaps times the batch size."""
    if isinstance(value, (int, float)):
        return scalar.const(finite(float(value)))
    if not isinstance(value, Folded):
        return None
    alike = single(value)
    if alike is not None:
        return scalar.const(finite(alike))
    if isinstance(value.meta, torch.SymInt):
        size = dimension(value.meta)
        return scalar.BATCH * float(size.times) if is_batched(size) else scalar.const(float(size))
    return None


def spread(x: Node, shape: Shape) -> Node:
    """Returns x in a larger shape by PyTorch's rule: aligned at the last axis, 1 becomes any."""
    if x.shape == shape:
        return x
    offset = len(shape) - ops.rank(x)
    new = [i for i in range(len(shape)) if i < offset or x.shape[i - offset] != shape[i]]
    kept = [d for i, d in enumerate(shape) if i not in new]
    return ops.broadcast(reshaped(x, kept), shape, new)


def reshaped(x: Node, shape: Sequence[Dim]) -> Node:
    """Returns x in another shape; x itself where it has it."""
    return x if x.shape == tuple(shape) else ops.reshape(x, shape)


def permuted(x: Node, order: Sequence[int]) -> Node:
    """Returns x with its axes in another order; x itself where they are in it."""
    return x if list(order) == list(range(len(order))) else ops.transpose(x, tuple(order))


def axis_of(axis: int, rank: int) -> int:
    """Returns a PyTorch axis, which may count from the last, as one that counts from the first."""
    return axis % max(rank, 1)


def axes_of(axes: int | Sequence[int] | None, rank: int) -> tuple[int, ...]:
    """Returns PyTorch's axes as ones that count from the first; none means all of them."""
    if axes is None or (isinstance(axes, (list, tuple)) and not axes):
        return tuple(range(rank))
    return tuple(sorted(axis_of(a, rank) for a in ([axes] if isinstance(axes, int) else axes)))


def last(x: Node, axis: int) -> tuple[Node, tuple[int, ...]]:
    """Returns x with an axis moved to the end, and the order that moves it back."""
    rank = ops.rank(x)
    order = (*(i for i in range(rank) if i != axis), axis)
    back = (*range(axis), rank - 1, *range(axis, rank - 1))
    return permuted(x, order), back


def dropped_axes(x: Node, axes: Sequence[int], kept: bool, total: Node) -> Node:
    """Returns a sum over axes of x, with those axes of size 1 where they are kept."""
    if not kept:
        return total
    return reshaped(total, [1 if i in axes else d for i, d in enumerate(x.shape)])
