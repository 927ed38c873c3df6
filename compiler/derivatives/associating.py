"""Sums of a product of matrices, taken in the order that needs no further product.

    Σ_j p_ij (a bᵀ)_ij = Σ_d a_id (p b)_id

Where p b is known, the sum on the right is of short rows. So it is behind attention: the part of a
softmax's adjoint that a row has in common is Σ_j p_ij p̄_ij with p̄ = ō vᵀ, or ō·o with o = p v.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..graph import ops, scalar
from ..graph.ir import Node, Op
from ..graph.scalar import Expr, var

MOST_TERMS = 64  # maps that are taken together to be compared


class Products:
    """The products of a graph that others may be written in.

    Args:
        nodes: the nodes of the graph.
    """

    def __init__(self, nodes: Iterable[Node]) -> None:
        self._of: dict[tuple[Node, bool], list[Node]] = {}
        for n in nodes:
            if n.op is Op.MATMUL and len(n.inputs) == 2 and not n["transpose_a"]:
                self._of.setdefault((n.inputs[1], n["transpose_b"]), []).append(n)

    def associated(self, total: Node) -> Node:
        """Returns an equal sum of short rows, if there is one; the sum itself otherwise."""
        if total.op is not Op.REDUCE_SUM or not self._of:
            return total
        (x,) = total.inputs
        last = ops.rank(x) - 1
        if total["axes"] != (last,):
            return total
        atoms: dict[Node, Expr] = {}
        terms = expanded(x, atoms)
        for wide, narrow in self._candidates(list(atoms)):
            factor = expanded(narrow.inputs[0], atoms)
            for sign in (1.0, -1.0):
                if factor is not None and terms is scalar.mul(sign, factor, atoms[wide]):
                    return _short(wide.inputs[0], narrow, sign)
        return total

    def _candidates(self, atoms: Iterable[Node]) -> Iterator[tuple[Node, Node]]:
        """Yields products a bᵀ among some values, with known products p b of their shape."""
        for wide in atoms:
            if wide.op is not Op.MATMUL or len(wide.inputs) != 2 or wide["transpose_a"]:
                continue
            for narrow in self._of.get((wide.inputs[1], not wide["transpose_b"]), ()):
                if narrow.inputs[0].shape == wide.shape:
                    yield wide, narrow


def _short(a: Node, narrow: Node, sign: float) -> Node:
    """Returns ± the sum of the products of two matrices' rows."""
    products = ops.map_(sign * var(0) * var(1), a, narrow)
    return ops.reduce_sum(products, (ops.rank(products) - 1,))


def expanded(x: Node, atoms: dict[Node, Expr]) -> Expr | None:
    """Returns a value as one expression of what is no map; None where it is a long one.

    Args:
        x: the value.
        atoms: what is no map, with its variable; new ones are added.
    """
    known: dict[Node, Expr] = {}
    stack = [x]
    while stack:
        node = stack[-1]
        if node.op is not Op.MAP:
            known[stack.pop()] = atoms.setdefault(node, var(len(atoms)))
            continue
        missing = [y for y in node.inputs if y not in known]
        if missing:
            stack += missing
            if len(known) > MOST_TERMS:
                return None
            continue
        operands = {i: known[y] for i, y in enumerate(node.inputs)}
        known[stack.pop()] = scalar.substitute(node["expr"], operands)
    return _without_nan(known[x])


def _without_nan(expr: Expr) -> Expr:
    """Returns an expression without what its choices are where a condition is NaN.

    A value and its derivative may say that in two ways; both are NaN there.
    """
    new: dict[Expr, Expr] = {}
    for e in scalar.subexpressions([expr]):
        args = [new[a] for a in e.args]
        new[e] = scalar.rebuild(e, args[:3] if e.op == "where" else args)
    return new[expr]
