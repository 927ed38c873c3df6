"""Ops along axes: an ATen name → sums, maxima and what is made of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from ..functions.activations import absolute
from ..functions.attention import log_softmax, softmax
from ..functions.shapes import count, cut
from ..graph import ops, scalar
from ..graph.errors import NewtritonError
from ..graph.ir import Node, Op, is_batched, product
from ..graph.scalar import var
from .images import first_of_rows
from .pointwise import POINTWISE
from .site import Rule, Site, Value, axes_of, axis_of, dropped_axes, last, permuted, reshaped

Axes = int | Sequence[int] | None


def _sum(site: Site, x: Value, dim: Axes = None, keepdim: bool = False, *_: object) -> Node:
    node = site.node(x)
    axes = axes_of(dim, ops.rank(node))
    node = node if node.type.kind == "float" else ops.scale(node, 1.0)
    return dropped_axes(node, axes, keepdim, ops.reduce_sum(node, axes))


def _mean(site: Site, x: Value, dim: Axes = None, keepdim: bool = False, *_: object) -> Node:
    node = site.node(x)
    number = count(node.shape[i] for i in axes_of(dim, ops.rank(node)))
    return ops.scale(_sum(site, node, dim, keepdim), scalar.reciprocal(number))


def _moments(node: Node, axes: Sequence[int], correction: float) -> tuple[Node, Node]:
    """Returns the mean and the variance, its divisor lessened by the correction."""
    number = count(node.shape[i] for i in axes)
    mean = ops.scale(ops.reduce_sum(node, axes), scalar.reciprocal(number))
    centred = ops.map_(var(0) - var(1), node, ops.broadcast(mean, node.shape, axes))
    squares = ops.reduce_sum(ops.multiply(centred, centred), axes)
    return mean, ops.scale(squares, scalar.reciprocal(number - float(correction)))


def _variance(site: Site, x: Value, *options: Value) -> Node:
    """Overloads: (unbiased), (dim, unbiased, keepdim), (dim, correction, keepdim)."""
    node = site.node(x)
    dim, correction, kept = (None, *options, False) if len(options) == 1 else options[:3]
    axes = axes_of(dim, ops.rank(node))
    correction = 1.0 if correction is None else float(correction)
    return dropped_axes(node, axes, bool(kept), _moments(node, axes, correction)[1])


def _deviation(site: Site, *given: Value) -> Node:
    return ops.map_(scalar.sqrt(var(0)), _variance(site, *given))


def _both(root: bool) -> Callable[..., list[Node]]:
    """Variance or deviation, and the mean."""

    def rule(site: Site, x: Value, *options: Value) -> list[Node]:
        node = site.node(x)
        variance = (_deviation if root else _variance)(site, node, *options)
        mean = ops.reshape(
            _mean(site, node, options[0] if len(options) > 1 else None), variance.shape
        )
        return [variance, mean]

    return rule


def _largest(site: Site, x: Value, dim: Axes = None, keepdim: bool = False) -> Node:
    """The largest elements along axes; equal ones share the derivative, as in `torch.amax`."""
    node = site.node(x)
    axes = axes_of(dim, ops.rank(node))
    return dropped_axes(node, axes, keepdim, ops.row_max(_rows(node, axes)))


def _smallest(site: Site, x: Value, dim: Axes = None, keepdim: bool = False) -> Node:
    return ops.scale(_largest(site, ops.scale(site.node(x), -1.0), dim, keepdim), -1.0)


def _extreme(among: Callable[..., Node], of_two: str) -> Callable[..., Node | list[Node]]:
    """`max` and `min`: of everything, along an axis with indices, or of two values."""
    sign = 1.0 if of_two == "maximum" else -1.0

    def rule(site: Site, x: Value, *options: Value) -> Node | list[Node]:
        if not options:
            return among(site, x)
        if site.overload == "other":
            return POINTWISE[of_two](site, x, options[0])
        return [
            _with_one_winner(site, site.node(x), *options, sign=sign),
            _place(sign)(site, x, *options),
        ]

    return rule


def _with_one_winner(site: Site, x: Node, dim: int, keepdim: bool, *, sign: float) -> Node:
    """The largest elements along an axis; of equal ones the first has the derivative."""
    rows, _ = last(ops.scale(x, sign), axis_of(dim, ops.rank(x)))
    found = ops.scale(first_of_rows(rows), sign)
    return reshaped(found, site.shape)


def _place(sign: float) -> Callable[..., Node]:
    """The index of the largest or smallest element, of equal ones the first; it is a number."""

    def rule(site: Site, x: Value, dim: int | None = None, *_: object) -> Node:
        node = ops.scale(site.node(x), sign)
        rows, _back = (
            last(node, axis_of(dim, ops.rank(node)))
            if dim is not None
            else (reshaped(node, (product(node.shape),)), ())
        )
        *lead, length = rows.shape
        if is_batched(length):
            raise NewtritonError("samples of a batch are independent here: use another axis")
        image = reshaped(rows, (*(lead or [1]), 1, length, 1))
        window = {"kernel": (1, length), "stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)}
        place = ops.scale(ops.make(Op.ARGMAX_POOL, image, **window), 1.0)
        return reshaped(place, site.shape)

    return rule


def _softmax(function: Callable[[Node, int], Node]) -> Callable[..., Node]:
    return lambda site, x, dim, *_: function(site.node(x), axis_of(dim, len(site.shape)))


def _logsumexp(site: Site, x: Value, dim: Axes, keepdim: bool = False) -> Node:
    node = site.node(x)
    axes = axes_of(dim, ops.rank(node))
    return dropped_axes(node, axes, keepdim, ops.log_sum_exp(_rows(node, axes)))


def _rows(node: Node, axes: Sequence[int]) -> Node:
    """A value with some of its axes merged into a last one."""
    kept = [i for i in range(ops.rank(node)) if i not in axes]
    shape = (*(node.shape[i] for i in kept), math.prod(node.shape[i] for i in axes))
    return reshaped(permuted(node, (*kept, *axes)), shape)


def _norm(
    site: Site, x: Value, order: Value = 2, dim: Axes = None, keepdim: bool = False, *_: object
) -> Node:
    node = site.node(x)
    axes = axes_of(dim, ops.rank(node))
    order = 2.0 if order is None else float(order)
    if math.isinf(order):
        return _largest(site, ops.map_(absolute(var(0)), node), dim, keepdim)
    if order == 2.0:
        total = ops.reduce_sum(ops.multiply(node, node), axes)
        # At 0 PyTorch takes the derivative 0.
        found = ops.map_(
            scalar.where(var(0), scalar.sqrt(scalar.where(var(0), var(0), 1.0)), 0.0), total
        )
    else:
        total = ops.reduce_sum(ops.map_(scalar.power(absolute(var(0)), order), node), axes)
        found = ops.map_(scalar.power(var(0), 1.0 / order), total)
    return dropped_axes(node, axes, keepdim, found)


def _cumulated(site: Site, x: Value, dim: int, *_: object) -> Node:
    """Sums of all elements up to each: a product with a triangle of ones."""
    node = site.node(x)
    node = node if node.type.kind == "float" else ops.scale(node, 1.0)
    rows, back = last(node, axis_of(dim, ops.rank(node)))
    size = rows.shape[-1]
    if not isinstance(size, int):
        raise NewtritonError("samples of a batch are independent here: sum along another axis")
    triangle = site.scope.constant(torch.ones(size, size).triu())
    if ops.rank(rows) == 1:
        return reshaped(ops.matmul(reshaped(rows, (1, size)), triangle), site.shape)
    return permuted(ops.matmul(rows, triangle), back)


def _product(
    site: Site, x: Value, dim: int | None = None, keepdim: bool = False, *_: object
) -> Node:
    node = site.node(x)
    axes = axes_of(dim, ops.rank(node))
    rows = _rows(node, axes)
    parts = [
        reshaped(cut(rows, ops.rank(rows) - 1, i, i + 1), rows.shape[:-1])
        for i in range(rows.shape[-1])
    ]
    expr = scalar.mul(*map(var, range(len(parts))))
    return dropped_axes(node, axes, keepdim, ops.map_(expr, *parts))


REDUCTIONS: dict[str, Rule] = {
    "sum": _sum,
    "mean": _mean,
    "var": _variance,
    "std": _deviation,
    "var_mean": _both(root=False),
    "std_mean": _both(root=True),
    "amax": _largest,
    "amin": _smallest,
    "max": _extreme(_largest, "maximum"),
    "min": _extreme(_smallest, "minimum"),
    "argmax": _place(1.0),
    "argmin": _place(-1.0),
    "softmax": _softmax(softmax),
    "_softmax": _softmax(softmax),
    "log_softmax": _softmax(log_softmax),
    "_log_softmax": _softmax(log_softmax),
    "logsumexp": _logsumexp,
    "linalg_vector_norm": _norm,
    "norm": _norm,
    "cumsum": _cumulated,
    "prod": _product,
}
