"""Rows of a table at given indices, and the row that stands for padding."""

from __future__ import annotations

from ..graph import ops, scalar
from ..graph.ir import Node, Op
from ..graph.scalar import var
from .shapes import copied


def embedding(table: Node, index: Node, padding_idx: int | None = None) -> Node:
    """Returns the rows table[index], (*index's axes, D).

    Args:
        table: V rows of D numbers.
        index: integers 0…V−1 of any shape.
        padding_idx: the row that counts as constant, as PyTorch's: it has no gradient.
    """
    rows = ops.make(Op.GATHER_ROWS, table, index)
    return rows if padding_idx is None else padded(rows, index, padding_idx % table.shape[0])


def padded(rows: Node, index: Node, row: int) -> Node:
    """Returns a table's rows, of which those at the index of one row count as constant."""
    distance = ops.map_(var(0) - float(row), index)
    distance = copied(distance, rows, (ops.rank(rows) - 1,))
    kept = scalar.where(var(1) * var(1), var(0), var(2))
    return ops.map_(kept, rows, distance, fixed(rows))


def fixed(x: Node) -> Node:
    """Returns x as a constant: each element is the maximum of itself, that stabilises a softmax."""
    return ops.row_max(ops.reshape(x, (*x.shape, 1)), stabiliser=True)
