"""Rows by index, one-hot rows, random numbers: an ATen name → gathers and leaves of the graph."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..functions.embedding import embedding
from ..graph import ops
from ..graph.errors import NewtritonError
from ..graph.ir import N, Node, Op, Shape, batch_axis, is_batched
from .folding import Folded, of_every_sample
from .site import Rule, Site, Value, axis_of, reshaped, spread


def _index(site: Site, value: Value) -> Node:
    """Returns indices as a node of integers; a constant that all samples share, of one sample."""
    if isinstance(value, Node):
        if value.type.kind != "int":
            raise NewtritonError("its indices are computed from values: give them as an input")
        return value
    axis = batch_axis(value.shape)
    found = value.tensor if axis is None else of_every_sample(value, axis)
    return site.scope.constant(found.long())


def _embedding(
    site: Site,
    table: Value,
    index: Value,
    padding_idx: int = -1,
    by_frequency: bool = False,
    *_: object,
) -> Node:
    if by_frequency:
        raise NewtritonError("scale_grad_by_freq gives no derivative of a loss: leave it out")
    rows = embedding(
        site.node(table), _index(site, index), None if padding_idx < 0 else padding_idx
    )
    return spread(rows, site.shape)


def _indexed(site: Site, x: Value, indices: Sequence[Value]) -> Node:
    """x[i, j, …] with constants for indices, or a table's rows at indices that are an input."""
    node = site.node(x)
    axes = [i for i, index in enumerate(indices) if index is not None]
    given = [indices[i] for i in axes]
    if axes == [0] and isinstance(given[0], Node):
        table = reshaped(node, (node.shape[0], math.prod(node.shape[1:])))
        return reshaped(embedding(table, _index(site, given[0])), site.shape)
    if axes != list(range(axes[0], axes[0] + len(axes))):
        raise NewtritonError("indices stand at axes that are not side by side: index one by one")
    sizes = [node.shape[a] for a in axes]
    if any(map(is_batched, sizes)) or not all(isinstance(v, Folded) for v in given):
        raise NewtritonError("it takes elements by computed indices, or samples: use constants")
    places = torch.zeros((), dtype=torch.int64)
    for size, value in zip(sizes, given, strict=True):
        places = places * size + _places(value.tensor, size)
    merged = reshaped(node, (*node.shape[: axes[0]], math.prod(sizes), *node.shape[axes[-1] + 1 :]))
    return reshaped(taken(site, merged, axes[0], places), site.shape)


def _places(index: Tensor, size: int) -> Tensor:
    """Returns indices that count from the first; of truth values, where they are true."""
    if index.dtype is torch.bool:
        index = index.nonzero().squeeze(1)
    return torch.where(index < 0, index + size, index)


def taken(site: Site, x: Node, axis: int, places: Tensor) -> Node:
    """Returns the elements of an axis at some places, whose axes stand where it stood."""
    lead, rest = x.shape[:axis], x.shape[axis + 1 :]
    table = reshaped(x, (*lead, x.shape[axis], _numel(rest)))
    rows = ops.make(Op.GATHER_ROWS, table, site.scope.constant(places))
    return reshaped(rows, (*lead, *places.shape, *rest))


def _numel(shape: Shape) -> object:
    """Returns the product of dimensions, a multiple of the batch size where it is among them."""
    product = math.prod(d.times if is_batched(d) else d for d in shape)
    return N * product if any(map(is_batched, shape)) else product


def _index_select(site: Site, x: Value, dim: int, index: Value) -> Node:
    node = site.node(x)
    axis = axis_of(dim, ops.rank(node))
    return _indexed(site, node, [*[None] * axis, index])


def _one_hot(site: Site, index: Value, _: Value) -> Node:
    return ops.make(Op.ONE_HOT, _index(site, index), classes=site.shape[-1])


def dropped(site: Site, x: Node, p: float) -> Node:
    """Returns x with a share p of its elements 0; the samples have an axis of their own."""
    if not p:
        return x
    axis = batch_axis(x.shape)
    apart = (
        x.shape
        if axis is None
        else (
            *x.shape[:axis],
            N,
            *([times] if (times := x.shape[axis].times) > 1 else []),
            *x.shape[axis + 1 :],
        )
    )
    return reshaped(site.scope.dropout(reshaped(x, apart), float(p)), x.shape)


def _dropout(site: Site, x: Value, p: float, training: bool = True) -> Node:
    return dropped(site, site.node(x), p) if training else site.node(x)


def _bernoulli(site: Site, _: Value, p: float = 0.5, *rest: object) -> Node:
    """Ones with a probability, zeros otherwise: ones that drop out, without what is made up for."""
    ones = ops.broadcast(ops.const(1.0), site.shape)
    return ops.scale(dropped(site, ones, 1.0 - float(p)), float(p))


ROWS: dict[str, Rule] = {
    "embedding": _embedding,
    "index": _indexed,
    "index_select": _index_select,
    "one_hot": _one_hot,
    "dropout": _dropout,
    "native_dropout": lambda site, *given: [_dropout(site, *given), None],
    "bernoulli": _bernoulli,
}
