"""Wide values: scores of attention, logits of many classes, and whatever has their shape.

A shape is wide if rows of it are normalised somewhere, by their maximum or the logarithm of their
sum of exponentials, and either there are many columns, or it is larger than the operands of the
product that it comes from: T×S scores of T×d queries and S×d keys, where T·S > d·(T + S). Tangents
and adjoints of a wide value have its shape, copies of them further axes before it.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..graph.ir import Node, Op, Shape, is_batched, topological

MANY = 4096  # columns from which on any normalised row is wide
LEAST = 128 * 128  # elements of a matrix of scores below which it stays in the cache anyway
SHORT = 256  # the depth up to which a product is computed again rather than kept

NORMALISED = (Op.ROW_MAX, Op.LOG_SUM_EXP)
MADE_IN_PASSING = frozenset({Op.MAP, Op.MATMUL, Op.BROADCAST, Op.ONE_HOT})


def wide_shapes(roots: Iterable[Node]) -> frozenset[Shape]:
    """Returns the wide shapes among all that `roots` follow from, given values included."""
    rows = [n.inputs[0] for n in topological(roots) if n.op in NORMALISED]
    return frozenset(x.shape for x in rows if _is_wide(x))


def trailing(shape: Shape, shapes: frozenset[Shape]) -> Shape | None:
    """Returns the wide shape in which a shape ends; None where there is none."""
    ends = (shape[start:] for start in range(len(shape) - 1))
    return next((end for end in ends if end in shapes), None)


def recomputed(nodes: Iterable[Node]) -> frozenset[Node]:
    """Returns the wide values that are computed again wherever they are read, and never kept.

    A product of long depth costs more to compute than to keep.
    """
    nodes = list(nodes)
    shapes = wide_shapes(nodes)
    found = {n for n in nodes if is_made_in_passing(n, shapes) and depth(n) <= SHORT}
    regrouped = [n.inputs[0] for n in nodes if n.op is Op.RESHAPE and n.shape in shapes]
    while regrouped:
        x = regrouped.pop()
        if x.op in MADE_IN_PASSING and depth(x) <= SHORT and x not in found:
            found.add(x)
            regrouped += x.inputs if x.op is Op.MAP else []
    return frozenset(found)


def is_made_in_passing(node: Node, shapes: frozenset[Shape]) -> bool:
    """Whether a value is wide, and of an op that makes any block of it from blocks."""
    return node.op in MADE_IN_PASSING and trailing(node.shape, shapes) is not None


def depth(node: Node) -> int:
    """Returns how many numbers are multiplied for an element of a product, 0 for other ops."""
    if node.op is not Op.MATMUL:
        return 0
    size = node.inputs[0].shape[-2 if node["transpose_a"] else -1]
    return SHORT + 1 if is_batched(size) else size


def _is_wide(x: Node) -> bool:
    """Whether the shape of rows that are normalised is wide."""
    *lead, rows, columns = (1, *x.shape) if len(x.shape) < 2 else x.shape
    if is_batched(columns):
        return False
    if columns >= MANY:
        return True
    product = _product(x)
    if product is None or is_batched(rows) or not lead:
        return False
    return rows * columns > max(LEAST - 1, depth(product) * (rows + columns))


def _product(x: Node) -> Node | None:
    """Returns the nearest product that a value follows from by maps of its size and reshapes."""
    waiting, seen = [x], {x}
    while waiting:
        node = waiting.pop()
        if node.op is Op.MATMUL:
            return node
        near = node.inputs if node.op in (Op.MAP, Op.RESHAPE) else ()
        waiting += [y for y in near if y not in seen]
        seen.update(near)
    return None
