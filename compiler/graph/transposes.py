"""Transposes move behind the ops that read them, until they meet and cancel.

A network that is written in PyTorch's order, channels before pixels, transposes to what an op wants
and back. Behind a map, a sum or a view of transposed values the same values are transposed once,
and a transpose of a transpose is one, or none. Every rule takes a node of which an operand is
transposed to an equal node, and leaves it as it is where nothing is gained.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from . import ops
from .ir import Dim, Node, Op, is_batched, per_sample

Order = tuple[int, ...]
Simple = Callable[[Node], Node]  # simplifies a node over simple operands


def inverse(order: Sequence[int]) -> Order:
    """Returns the permutation that undoes `order`."""
    return tuple(sorted(range(len(order)), key=order.__getitem__))


def _before(node: Node, order: Order, simple: Simple) -> Node | None:
    """Returns what gives `node` when it is transposed by `order`; None where that is more work."""
    if node.op is Op.TRANSPOSE and node["order"] == order:
        return node.inputs[0]
    if node.op is not Op.BROADCAST:
        return None
    (x,) = node.inputs
    kept = [order[axis] for axis in range(len(order)) if axis not in node["axes"]]
    shape = tuple(node.shape[axis] for axis in inverse(order))
    axes = [axis for axis in range(len(order)) if axis not in kept]
    moved = simple(ops.transpose(x, inverse(_ranks(kept))))
    return simple(ops.broadcast(moved, shape, axes)) if axes else None


def _ranks(axes: Sequence[int]) -> Order:
    """Returns for each of some axes how many of them are lower."""
    return tuple(sorted(axes).index(axis) for axis in axes)


def _common_order(operands: Sequence[Node]) -> Order | None:
    """Returns the order by which the first transposed operand is transposed, if there is one."""
    return next((x["order"] for x in operands if x.op is Op.TRANSPOSE), None)


def _elementwise(node: Node, simple: Simple) -> Node:
    """Takes an op of equally transposed operands, copies among them, before the transpose."""
    order = _common_order(node.inputs)
    if order is None:
        return node
    before = [_before(x, order, simple) for x in node.inputs]
    if any(x is None for x in before):
        return node
    attributes = dict(node.attributes)
    if "axis" in attributes:
        attributes["axis"] = order[attributes["axis"]]
    inner = simple(ops.make(node.op, *(x for x in before if x is not None), **attributes))
    return simple(ops.transpose(inner, order))


def _reduce_sum(node: Node, simple: Simple) -> Node:
    """Sums over the axes where they were before the transpose."""
    (x,) = node.inputs
    order = x["order"]
    kept = [axis for i, axis in enumerate(order) if i not in node["axes"]]
    total = simple(ops.reduce_sum(x.inputs[0], sorted(order[a] for a in node["axes"])))
    return simple(ops.transpose(total, _ranks(kept)))


def _reshape(node: Node, simple: Simple) -> Node:
    """Merges and splits axes before the transpose, where it moves those of a group together."""
    (x,) = node.inputs
    runs = groups(x.shape, node.shape)
    if runs is None:
        return node
    order, moved = x["order"], []
    for number, (old, new) in enumerate(runs):
        axes = [order[a] for a in old if x.shape[a] != 1] or [order[a] for a in old]
        if axes != list(range(axes[0], axes[0] + len(axes))):
            return node
        moved.append((axes[0], number, new))
    if len(moved) == 1:
        return node
    moved.sort()
    shape = [node.shape[a] for *_, new in moved for a in new]
    places = [a for *_, new in moved for a in new]
    return simple(ops.transpose(simple(ops.reshape(x.inputs[0], shape)), inverse(places)))


def groups(old: Sequence[Dim], new: Sequence[Dim]) -> list[tuple[list[int], list[int]]] | None:
    """Returns the smallest runs of axes that hold the same elements before and after a reshape."""
    found: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) and j < len(new):
        left, right = [i], [j]
        i, j = i + 1, j + 1
        while (a := _size(old, left)) != (b := _size(new, right)):
            grow = a[1] < b[1] or (a[1] == b[1] and a[0] < b[0])
            if grow and i < len(old):
                left.append(i)
                i += 1
            elif not grow and j < len(new):
                right.append(j)
                j += 1
            else:
                return None
        found.append((left, right))
    if not found:
        return None
    found[-1][0].extend(range(i, len(old)))
    found[-1][1].extend(range(j, len(new)))
    return found


def _size(shape: Sequence[Dim], axes: Sequence[int]) -> tuple[int, int]:
    """Returns how many elements a sample has along axes, and whether these include the batch."""
    dims = [shape[a] for a in axes]
    return per_sample(dims), sum(map(is_batched, dims))


def _matmul(node: Node, simple: Simple) -> Node:
    """Leaves it to the op to exchange the last two axes of an operand."""
    operands, attributes = list(node.inputs), dict(node.attributes)
    for i, name in enumerate(("transpose_a", "transpose_b")):
        x = operands[i]
        if x.op is Op.TRANSPOSE and x["order"][-2] > x["order"][-1]:
            *lead, row, column = x["order"]
            operands[i] = simple(ops.transpose(x.inputs[0], (*lead, column, row)))
            attributes[name] = not attributes[name]
    return ops.make(node.op, *operands, **attributes)


BEHIND: dict[Op, Callable[[Node, Simple], Node]] = {
    Op.MAP: _elementwise,
    Op.CONCAT: _elementwise,
    Op.SLICE: _elementwise,
    Op.PAD: _elementwise,
    Op.REDUCE_SUM: _reduce_sum,
    Op.RESHAPE: _reshape,
    Op.MATMUL: _matmul,
}


def moved_behind(node: Node, simple: Simple) -> Node:
    """Returns an equal node whose operands are not transposed, if there is one by a local rule.

    Args:
        node: a node over simple operands.
        simple: what simplifies the nodes that are made.
    """
    if node.op not in BEHIND or all(x.op is not Op.TRANSPOSE for x in node.inputs):
        return node
    return BEHIND[node.op](node, simple)
