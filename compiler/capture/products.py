"""Matrix products, linear layers and attention: an ATen name → contractions of the graph."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..functions.attention import MASKED, additive, attention
from ..graph import ops, scalar
from ..graph.ir import Dim, Node, Op, batch_axis, is_batched
from ..graph.scalar import var
from ..graph.transposes import groups
from .dropout import dropped
from .folding import Folded
from .site import Rule, Site, Value, permuted, reshaped, spread


def _linear(site: Site, x: Value, weight: Value, bias: Value = None) -> Node:
    """x Wᵀ + b; positions that have been merged with the samples are kept apart, samples first."""
    node, w = site.node(x), site.node(weight)
    b = None if bias is None else site.node(bias)
    node = _unmerged(node)
    axis = batch_axis(node.shape)
    if axis is None or axis == ops.rank(node) - 1 or ops.rank(node) < 2:
        return reshaped(_product(node, ops.transpose(w, (1, 0)), b), site.shape)
    rank = ops.rank(node)
    order = (axis, *(i for i in range(rank) if i != axis))
    back = (*range(1, axis + 1), 0, *range(axis + 1, rank))
    found = ops.matmul(permuted(node, order), w, b, tb=True)
    return reshaped(permuted(found, back), site.shape)


def _unmerged(x: Node) -> Node:
    """Returns x with those axes apart that a reshape has merged, except for the last one."""
    if x.op is not Op.RESHAPE:
        return x
    (inner,) = x.inputs
    found = groups(inner.shape, x.shape)
    if found is None:
        return x
    shape: list[Dim] = []
    for old, new in found:
        ends = ops.rank(x) - 1 in new
        shape += [x.shape[i] for i in new] if ends else [inner.shape[i] for i in old]
    return reshaped(inner, shape) if len([*filter(is_batched, shape)]) == 1 else x


def _product(x: Node, y: Node, bias: Node | None = None) -> Node:
    """Returns x y as `torch.matmul` reads shapes, plus a bias per column.

    A vector is a row on the left and a column on the right; lead axes are aligned at the last.
    """
    rows = x if ops.rank(x) > 1 else ops.reshape(x, (1, *x.shape))
    columns = y if ops.rank(y) > 1 else ops.reshape(y, (*y.shape, 1))
    rows, columns = _aligned(rows, columns)
    return ops.matmul(rows, columns, bias)


def _aligned(x: Node, y: Node) -> tuple[Node, Node]:
    """Returns matrices with lead axes of which one's are the last of the other's."""
    short, long = sorted((x.shape[:-2], y.shape[:-2]), key=len)
    if long[len(long) - len(short) :] == short:
        return x, y
    padded = [(1,) * (len(long) - len(s[:-2])) + s[:-2] for s in (x.shape, y.shape)]
    lead = tuple(b if a == 1 else a for a, b in zip(*padded, strict=True))
    return spread(x, (*lead, *x.shape[-2:])), spread(y, (*lead, *y.shape[-2:]))


def _matmul(site: Site, x: Value, y: Value, *_: object) -> Node:
    return reshaped(_product(site.node(x), site.node(y)), site.shape)


def _addmm(site: Site, bias: Value, x: Value, y: Value, beta: float = 1, alpha: float = 1) -> Node:
    left, right = site.node(x), site.node(y)
    if isinstance(bias, Node) and bias.shape == site.shape[-1:] and beta == alpha == 1:
        return reshaped(_product(_unmerged(left), right, bias), site.shape)
    found = reshaped(_product(left, right), site.shape)
    return site.map(lambda b, p: float(beta) * b + float(alpha) * p, bias, found)


def _outer(site: Site, x: Value, y: Value) -> Node:
    left, right = site.node(x), site.node(y)
    return ops.multiply(
        spread(ops.reshape(left, (*left.shape, 1)), site.shape), spread(right, site.shape)
    )


def _bilinear(site: Site, x: Value, y: Value, weight: Value, bias: Value = None) -> Node:
    """x W_k y + b_k for each output k."""
    left, right, w = (site.node(v) for v in (x, y, weight))
    outputs, rows, columns = w.shape
    flat = reshaped(permuted(w, (1, 0, 2)), (rows, outputs * columns))
    halves = reshaped(_product(left, flat), (*left.shape[:-1], outputs, columns))
    factor = spread(reshaped(right, (*right.shape[:-1], 1, columns)), halves.shape)
    found = ops.reduce_sum(ops.multiply(halves, factor), (ops.rank(halves) - 1,))
    return found if bias is None else site.map(lambda a, b: a + b, found, bias)


def _attention(
    site: Site,
    q: Value,
    k: Value,
    v: Value,
    mask: Value = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Node:
    query, key, value = (site.node(x) for x in (q, k, v))
    rows = (*query.shape[:-1], key.shape[-2])
    added = order = None
    if is_causal or _is_causal(mask, rows[-2:]):
        queries, keys = (site.scope.constant(torch.arange(n).double()) for n in rows[-2:])
        order = queries, keys
    elif mask is not None:
        added = spread(_added(site, mask), rows)
    return attention(
        query,
        key,
        value,
        added,
        scale,
        added is not None,
        lambda weights: dropped(site, weights, dropout_p),
        order,
    )


def _is_causal(mask: Value, shape: Sequence[Dim]) -> bool:
    """Whether a mask is constant and lets a query see the keys up to its own index."""
    if not isinstance(mask, Folded):
        return False
    below = torch.ones(*shape, dtype=torch.bool).tril()
    added = (additive(t).double() for t in mask.values)
    expected = additive(below).double()
    return all(t.shape[-2:] == below.shape and bool((t == expected).all()) for t in added)


def _added(site: Site, mask: Value) -> Node:
    """A mask as numbers that are added to scores; truth values say what is seen."""
    truth = site.call.args[3].meta["val"].dtype is torch.bool
    if isinstance(mask, Folded):
        values = tuple(additive(t) for t in mask.values) if truth else mask.values
        return site.node(Folded((values[0], values[1]), mask.meta))
    return ops.map_(scalar.where(var(0), 0.0, MASKED), mask) if truth else mask


PRODUCTS: dict[str, Rule] = {
    "linear": _linear,
    "matmul": _matmul,
    "mm": _matmul,
    "bmm": _matmul,
    "mv": _matmul,
    "dot": _matmul,
    "addmm": _addmm,
    "addmv": _addmm,
    "addbmm": _addmm,
    "baddbmm": _addmm,
    "outer": _outer,
    "bilinear": _bilinear,
    "scaled_dot_product_attention": _attention,
}
