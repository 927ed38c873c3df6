"""Wide values in one shape: rows that a reshape merges or splits are left as they are normalised.

A head on N×T×D gives N×T×V logits, of which a loss on labels takes N·T×V rows. Where both stand
between wide values, the product is taken of rows, and what reads it reads rows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ..graph import ops
from ..graph.ir import LEAVES, Node, Op, Shape, product, topological
from .wide import trailing, wide_shapes


def regrouped(outputs: Mapping[str, Node], given: Collection[Node]) -> dict[str, Node]:
    """Returns the same values, with wide ones in the shape in which their rows are normalised.

    Args:
        outputs: the values that must lie in memory in the end, by name.
        given: the values that come from outside.
    """
    shapes = wide_shapes(outputs.values())
    if not shapes:
        return dict(outputs)
    whole = {*given, *outputs.values()}
    new: dict[Node, Node] = {}
    for node in topological(outputs.values(), stop=given.__contains__):
        if node in given or node.op in LEAVES:
            new[node] = node
            continue
        inputs = tuple(new[x] for x in node.inputs)
        made = ops.remake(node, inputs)
        if node.op is Op.RESHAPE and made.shape in shapes and node.inputs[0] not in whole:
            made = _in_rows(inputs[0], made.shape, whole)
        elif rows := next((x for x in inputs if _merges(x, shapes)), None):
            made = _of_rows(made, rows, whole) or made
        new[node] = made
    return {name: new[node] for name, node in outputs.items()}


def _merges(x: Node, shapes: frozenset[Shape]) -> bool:
    """Whether a value is wide but for its shape."""
    if x.op is not Op.RESHAPE or x.shape[-1:] != x.inputs[0].shape[-1:]:
        return False
    return trailing(x.inputs[0].shape, shapes) is not None


def _of_rows(node: Node, merged: Node, whole: Collection[Node]) -> Node | None:
    """Returns a map, a sum over all rows, or a product of each, of rows before a reshape."""
    (rows,) = merged.inputs
    rank, last = len(merged.shape), len(rows.shape) - 1
    if node.op is Op.MAP:
        operands = (_in_rows(x, rows.shape, whole) for x in node.inputs)
        return ops.reshape(ops.map_(node["expr"], *operands), node.shape)
    if node.op is Op.REDUCE_SUM and node["axes"] == tuple(range(rank)):
        return ops.reduce_sum(rows)
    if node.op is Op.REDUCE_SUM and node["axes"] == tuple(range(rank - 1)):
        return ops.reduce_sum(rows, tuple(range(last)))
    if node.op is not Op.MATMUL:
        return None
    stacked = merged.shape[-2:] == rows.shape[-2:]
    if stacked and (found := _of_stacks(node, rows.shape, whole)) is not None:
        return ops.reshape(found, node.shape)
    _, *others = node.inputs
    if node.inputs[0] is merged and not node["transpose_a"] and len(others[0].shape) == 2:
        return ops.reshape(ops.make(Op.MATMUL, rows, *others, **node.attributes), node.shape)
    return None


def _of_stacks(node: Node, shape: Shape, whole: Collection[Node]) -> Node | None:
    """Returns a product of stacks whose matrices are arranged as those of a shape."""
    x, y, *bias = node.inputs
    old, new = x.shape[:-2], shape[:-2]
    if not old or old != y.shape[:-2] or product(old) != product(new):
        return None
    both = (_in_rows(each, (*new, *each.shape[-2:]), whole) for each in (x, y))
    return ops.make(Op.MATMUL, *both, *bias, **node.attributes)


def _in_rows(x: Node, shape: Shape, whole: Collection[Node]) -> Node:
    """Returns x in another shape with the same last axis, as far back as it is no view."""
    if x.shape == shape:
        return x
    if x.op is Op.RESHAPE:
        return _in_rows(x.inputs[0], shape, whole)
    if x in whole or x.op in LEAVES or x.shape[-1:] != shape[-1:]:
        return ops.reshape(x, shape)
    if x.op is Op.MAP:
        return ops.map_(x["expr"], *(_in_rows(y, shape, whole) for y in x.inputs))
    if x.op is Op.BROADCAST and x.inputs[0].shape == ():
        return ops.broadcast(x.inputs[0], shape)
    stacked = x.op is Op.MATMUL and x.shape[-2:] == shape[-2:]
    if stacked and (found := _of_stacks(x, shape, whole)) is not None:
        return found
    if x.op is Op.MATMUL and not x["transpose_a"] and len(x.inputs[1].shape) == 2:
        rows, *others = x.inputs
        rows = ops.reshape(rows, (*shape[:-1], rows.shape[-1]))
        return ops.make(Op.MATMUL, rows, *others, **x.attributes)
    return ops.reshape(x, shape)
