"""Softmax in one loop: what is summed is taken relative to the maximum of the row so far.

    M = max_j s_j    L = log Σ_j exp(s_j − M)    o = Σ_j exp(s_j − M − L) v_j

A sum whose terms all have the factor exp(−M − L), and depend on M and L in no other way, is taken
with the running maximum instead of M and without L. Whenever the maximum grows the sum so far is
multiplied by exp(old − new), in the end by exp(−L).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..graph.ir import Node, Op
from ..graph.scalar import ZERO, Expr, subexpressions, var
from ..streaming.hidden import ROUNDING


@dataclass(frozen=True)
class Softmax:
    """A row's maximum, and the logarithm of the sum of exponentials of what it is subtracted from.

    Attributes:
        maximum: M.
        normaliser: L.
    """

    maximum: Node
    normaliser: Node


def softmax_of(normaliser: Node) -> Softmax | None:
    """Returns the softmax that a normaliser belongs to, if the maximum is subtracted in it."""
    if normaliser.op is not Op.LOG_SUM_EXP:
        return None
    (x,) = normaliser.inputs
    if x.op is not Op.MAP or len(x.inputs) != 2 or str(x["expr"]) != "(-1*x1 + x0)":
        return None
    z, copies = x.inputs
    if copies.op is not Op.BROADCAST or copies["axes"] != (len(x.shape) - 1,):
        return None
    (most,) = copies.inputs
    found = most.op is Op.ROW_MAX and _plain(most.inputs[0]) is _plain(z)
    return Softmax(most, normaliser) if found else None


def _plain(x: Node) -> Node:
    """Returns the value that a map takes as it is."""
    while x.op is Op.MAP and x["expr"] is var(0):
        (x,) = x.inputs
    return x


@dataclass(frozen=True)
class Dependence:
    """How a value depends on M and L: a·M + b·L + c, or c·exp(−M − L), where c does not.

    Attributes:
        maximum: a.
        normaliser: b.
        factor: whether it is the second.
        zero: whether it is 0.
    """

    maximum: float = 0.0
    normaliser: float = 0.0
    factor: bool = False
    zero: bool = False

    @property
    def free(self) -> bool:
        """Whether it depends on neither."""
        return not (self.maximum or self.normaliser or self.factor)


FREE, FACTOR, NOTHING = Dependence(), Dependence(factor=True), Dependence(zero=True)


def dependences(softmax: Softmax, nodes: Sequence[Node]) -> dict[Node, Dependence | None]:
    """Returns for nodes, operands first, how they depend on a softmax; None where otherwise."""
    found: dict[Node, Dependence | None] = {
        softmax.maximum: Dependence(maximum=1.0),
        softmax.normaliser: Dependence(normaliser=1.0),
    }
    for node in nodes:
        if node not in found:
            known = [found.get(x, FREE) for x in node.inputs]
            if node.op is Op.MAP:
                found[node] = _of_expression(node["expr"], known)
            elif node.op is Op.BROADCAST:
                found[node] = known[0]
            else:
                found[node] = FREE if all(d is not None and d.free for d in known) else None
    return found


def _of_expression(expr: Expr, operands: Sequence[Dependence | None]) -> Dependence | None:
    """Returns how an expression depends on a softmax, by how its operands do."""
    found: dict[Expr, Dependence | None] = {}
    for e in subexpressions([expr]):
        found[e] = _of(e, operands, found)
    return found[expr]


def _of(
    e: Expr, operands: Sequence[Dependence | None], found: Mapping[Expr, Dependence | None]
) -> Dependence | None:
    if e.op == "var":
        return operands[int(e.value or 0)]
    if e is ZERO:
        return NOTHING
    # What a choice is at NaN is NaN, if it is the condition.
    read = e.args[:3] if e.op == "where" and e.args[3:] == e.args[:1] else e.args
    args = [found[a] for a in read]
    known = [d for d in args if d is not None]
    if len(known) < len(args):
        return None
    if all(d.free for d in known):
        return FREE
    if e.op == "add":
        return _sum(known)
    if e.op == "mul":
        return _product(e, known)
    if e.op == "exp":
        return FACTOR if (known[0].maximum, known[0].normaliser) == (-1.0, -1.0) else None
    if e.op == "where":
        return _choice(known)
    return known[0] if e.op in ROUNDING and known[0].factor else None


def _sum(terms: Sequence[Dependence]) -> Dependence | None:
    if any(d.factor for d in terms):
        return FACTOR if all(d.factor for d in terms) else None
    return Dependence(sum(d.maximum for d in terms), sum(d.normaliser for d in terms))


def _product(e: Expr, factors: Sequence[Dependence]) -> Dependence | None:
    """One factor may depend on the softmax; linearly only if all others are numbers."""
    (at, *others) = (i for i, d in enumerate(factors) if not d.free)
    if others:
        return None
    if factors[at].factor:
        return FACTOR
    number, rest = e.args[0], len(factors) - 1
    if rest != 1 or number.op != "const":
        return None
    times = float(number.value or 0.0)
    return Dependence(times * factors[at].maximum, times * factors[at].normaliser)


def _choice(parts: Sequence[Dependence]) -> Dependence | None:
    condition, *arms = parts
    kinds = {d for d in arms if not d.zero}
    return kinds.pop() if condition.free and len(kinds) == 1 else None
