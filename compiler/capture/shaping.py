"""Ops that move elements: an ATen name → the views, cuts and joins of the graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from ..functions.padding import pad
from ..functions.shapes import cut, joined
from ..graph import ops
from ..graph.errors import NewtritonError
from ..graph.ir import Batched, Dim, Node, Op, is_batched
from .site import Rule, Site, Value, axes_of, axis_of, permuted, reshaped, spread


def _reshape(site: Site, x: Value, *_: Value) -> Node:
    """Any op that keeps the order of the elements: the call's shape says the rest."""
    node = site.node(x)
    return reshaped(node.inputs[0] if node.op is Op.RESHAPE else node, site.shape)


def _permute(site: Site, x: Value, order: Sequence[int]) -> Node:
    node = site.node(x)
    return permuted(node, [axis_of(a, ops.rank(node)) for a in order])


def _transpose(site: Site, x: Value, first: int, second: int) -> Node:
    node = site.node(x)
    order = list(range(ops.rank(node)))
    first, second = axis_of(first, len(order)), axis_of(second, len(order))
    order[first], order[second] = order[second], order[first]
    return permuted(node, order)


def _reversed_axes(site: Site, x: Value) -> Node:
    node = site.node(x)
    return permuted(node, range(ops.rank(node))[::-1])


def _expand(site: Site, x: Value, *_: Value) -> Node:
    return spread(site.node(x), site.shape)


def _repeat(site: Site, x: Value, *_: Value) -> Node:
    """Copies a whole value along axes: each of them is an axis of copies and one of elements."""
    node = site.node(x)
    old = (1,) * (len(site.shape) - ops.rank(node)) + node.shape
    split = tuple(
        d for pair in zip(old, site.shape, strict=True) for d in (_quotient(*pair), pair[0])
    )
    copies = ops.broadcast(reshaped(node, old), split, tuple(range(0, len(split), 2)))
    return reshaped(copies, site.shape)


def _quotient(part: Dim, whole: Dim) -> Dim:
    """Returns whole/part for numbers or multiples of the batch size."""
    if is_batched(part):
        return whole.times // part.times
    return Batched(whole.times // part) if is_batched(whole) else whole // part


def _bounds(size: int, start: int | None, stop: int | None) -> tuple[int, int]:
    """Returns the bounds of a slice of an axis as Python reads them."""
    return slice(start, stop).indices(size)[:2]


def _known(size: object) -> int:
    """Returns a size that is a number.

    Raises:
        NewtritonError: it depends on the batch size.
    """
    if isinstance(size, int):
        return size
    raise NewtritonError("samples of a batch are independent here: leave its axis whole")


def _slice(site: Site, x: Value, dim: int, start: int | None, stop: int | None, step: int) -> Node:
    node = site.node(x)
    axis = axis_of(dim, ops.rank(node))
    if node.shape == site.shape and step == 1:
        return node
    start, stop = _bounds(_known(node.shape[axis]), start, stop)
    node = cut(node, axis, start, stop)
    return node if step == 1 else every(node, axis, step)


def every(x: Node, axis: int, step: int) -> Node:
    """Returns the first of each `step` elements of an axis."""
    size = x.shape[axis]
    count = -(-size // step)
    if short := count * step - size:
        x = ops.make(Op.PAD, x, axis=axis, low=0, high=short)
    x = ops.reshape(x, (*x.shape[:axis], count, step, *x.shape[axis + 1 :]))
    x = cut(x, axis + 1, 0, 1)
    return ops.reshape(x, (*x.shape[:axis], count, *x.shape[axis + 2 :]))


def _select(site: Site, x: Value, dim: int, index: Value) -> Node:
    node = site.node(x)
    axis = axis_of(dim, ops.rank(node))
    index = int(index) % _known(node.shape[axis])
    return reshaped(cut(node, axis, index, index + 1), site.shape)


def _cat(site: Site, parts: Sequence[Value], dim: int = 0) -> Node:
    axis = axis_of(dim, len(site.shape))
    nodes = [site.node(p) for p in parts if not _is_empty(p)]
    _known(site.shape[axis])
    return joined(_of_one_kind(nodes), axis)


def _is_empty(part: Value) -> bool:
    """Whether a part is PyTorch's empty vector, which joins to anything."""
    return tuple(part.shape) == (0,)


def _of_one_kind(nodes: Sequence[Node]) -> list[Node]:
    """Returns values, as floats where any of them is one."""
    if len({n.type.kind for n in nodes}) == 1:
        return list(nodes)
    return [n if n.type.kind == "float" else ops.scale(n, 1.0) for n in nodes]


def _stack(site: Site, parts: Sequence[Value], dim: int = 0) -> Node:
    axis = axis_of(dim, len(site.shape))
    nodes = _of_one_kind([site.node(p) for p in parts])
    shape = (*site.shape[:axis], 1, *site.shape[axis + 1 :])
    return joined([reshaped(n, shape) for n in nodes], axis)


def _pieces(site: Site, x: Value, dim: int) -> list[Node]:
    """The parts of an axis, as long as the call's values say."""
    node = site.node(x)
    axis, start, parts = axis_of(dim, ops.rank(node)), 0, []
    for shape in site.shapes:
        size = _known(shape[axis])
        parts.append(cut(node, axis, start, start + size))
        start += size
    return parts


def _split(site: Site, x: Value, _: Value, dim: int = 0) -> list[Node]:
    return _pieces(site, x, dim)


def _unbind(site: Site, x: Value, dim: int = 0) -> list[Node]:
    node = site.node(x)
    axis = axis_of(dim, ops.rank(node))
    parts = [cut(node, axis, i, i + 1) for i in range(_known(node.shape[axis]))]
    return [reshaped(p, shape) for p, shape in zip(parts, site.shapes, strict=True)]


def _slice_scatter(
    site: Site, x: Value, source: Value, dim: int, start: int | None, stop: int | None, step: int
) -> Node:
    node = site.node(x)
    axis = axis_of(dim, ops.rank(node))
    if source.shape == node.shape and step == 1:
        return site.node(source)
    if step != 1:
        raise NewtritonError("values are written at a distance: write them by torch.where")
    size = _known(node.shape[axis])
    return _written(node, site.node(source), axis, *_bounds(size, start, stop))


def _select_scatter(site: Site, x: Value, source: Value, dim: int, index: Value) -> Node:
    node = site.node(x)
    axis = axis_of(dim, ops.rank(node))
    index = int(index) % _known(node.shape[axis])
    shape = (*node.shape[:axis], 1, *node.shape[axis + 1 :])
    return _written(node, reshaped(site.node(source), shape), axis, index, index + 1)


def _written(x: Node, source: Node, axis: int, start: int, stop: int) -> Node:
    """Returns x with other elements start…stop−1 on an axis."""
    size = x.shape[axis]
    before = [cut(x, axis, 0, start)] if start else []
    after = [cut(x, axis, stop, size)] if stop < size else []
    return joined(_of_one_kind([*before, source, *after]), axis)


def _flip(site: Site, x: Value, dims: Sequence[int]) -> Node:
    node = site.node(x)
    for axis in axes_of(dims, ops.rank(node)):
        size = _known(node.shape[axis])
        node = joined([cut(node, axis, i, i + 1) for i in range(size)[::-1]], axis)
    return node


def _roll(site: Site, x: Value, shifts: Sequence[int], dims: Sequence[int]) -> Node:
    node = site.node(x)
    if not dims:
        rolled = _rolled(reshaped(node, (math.prod(map(_known, node.shape)),)), 0, shifts[0])
        return reshaped(rolled, site.shape)
    for shift, dim in zip(shifts, dims, strict=True):
        node = _rolled(node, axis_of(dim, ops.rank(node)), shift)
    return node


def _rolled(x: Node, axis: int, shift: int) -> Node:
    size = _known(x.shape[axis])
    split = -shift % size
    return joined([cut(x, axis, split, size), cut(x, axis, 0, split)], axis) if split else x


def _pad(site: Site, x: Value, widths: Sequence[int], mode: str, value: float | None) -> Node:
    node = site.node(x)
    pairs = list(zip(widths[::2], widths[1::2], strict=True))
    at = {ops.rank(node) - 1 - i: pair for i, pair in enumerate(pairs) if pair != (0, 0)}
    return pad(node, at, mode, value or 0.0)


def _constant_pad(site: Site, x: Value, widths: Sequence[int], value: float = 0.0) -> Node:
    return _pad(site, x, widths, "constant", value)


def _pixel_shuffle(site: Site, x: Value, factor: int) -> Node:
    node = site.node(x)
    *lead, c, h, w = node.shape
    node = ops.reshape(node, (*lead, c // factor**2, factor, factor, h, w))
    n = len(lead)
    return reshaped(permuted(node, (*range(n), n, n + 3, n + 1, n + 4, n + 2)), site.shape)


def _pixel_unshuffle(site: Site, x: Value, factor: int) -> Node:
    node = site.node(x)
    *lead, c, h, w = node.shape
    node = ops.reshape(node, (*lead, c, h // factor, factor, w // factor, factor))
    n = len(lead)
    return reshaped(permuted(node, (*range(n), n, n + 2, n + 4, n + 1, n + 3)), site.shape)


def _channel_shuffle(site: Site, x: Value, groups: int) -> Node:
    node = site.node(x)
    n, c, *spatial = node.shape
    node = ops.reshape(node, (n, groups, c // groups, *spatial))
    return reshaped(permuted(node, (0, 2, 1, *range(3, ops.rank(node)))), site.shape)


def _triangle(keep: Callable[..., torch.Tensor]) -> Callable[..., Node]:
    """The lower or upper triangle of matrices: a constant mask decides."""

    def rule(site: Site, x: Value, diagonal: int = 0) -> Node:
        node = site.node(x)
        rows, columns = map(_known, node.shape[-2:])
        mask = site.scope.constant(keep(torch.ones(rows, columns), diagonal))
        return ops.multiply(node, spread(mask, node.shape))

    return rule


def _diagonal(site: Site, x: Value, offset: int, first: int, second: int) -> Node:
    node = site.node(x)
    rank = ops.rank(node)
    first, second = axis_of(first, rank), axis_of(second, rank)
    order = (*(i for i in range(rank) if i not in (first, second)), first, second)
    node = permuted(node, order)
    rows, columns = map(_known, node.shape[-2:])
    length = min(rows + min(offset, 0), columns - max(offset, 0))
    node = cut(node, rank - 2, max(-offset, 0), max(-offset, 0) + length)
    node = cut(node, rank - 1, max(offset, 0), max(offset, 0) + length)
    eye = spread(site.scope.constant(torch.eye(length)), node.shape)
    return ops.reduce_sum(ops.multiply(node, eye), (rank - 1,))


SHAPING: dict[str, Rule] = {
    **dict.fromkeys(
        (
            "view", "_unsafe_view", "reshape", "_reshape_copy", "flatten", "unflatten", "squeeze",
            "unsqueeze", "view_as", "reshape_as", "ravel",
        ),
        _reshape,
    ),
    "permute": _permute,
    "transpose": _transpose,
    "swapaxes": _transpose,
    "t": _reversed_axes,
    "numpy_T": _reversed_axes,
    "expand": _expand,
    "expand_as": _expand,
    "broadcast_to": _expand,
    "repeat": _repeat,
    "slice": _slice,
    "narrow": lambda site, x, dim, start, length: _slice(
        site, x, dim, int(start), int(start) + length, 1
    ),
    "select": _select,
    "cat": _cat,
    "concat": _cat,
    "stack": _stack,
    "split": _split,
    "split_with_sizes": _split,
    "chunk": _split,
    "tensor_split": _split,
    "unbind": _unbind,
    "slice_scatter": _slice_scatter,
    "select_scatter": _select_scatter,
    "flip": _flip,
    "roll": _roll,
    "pad": _pad,
    "constant_pad_nd": _constant_pad,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
    "channel_shuffle": _channel_shuffle,
    "native_channel_shuffle": _channel_shuffle,
    "tril": _triangle(torch.tril),
    "triu": _triangle(torch.triu),
    "diagonal": _diagonal,
}  # fmt: skip
