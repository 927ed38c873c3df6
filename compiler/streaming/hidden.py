"""What a causal order hides: elements of a stream, from a row's index on, that add nothing.

Where a key comes after its query, a mask makes a score low, its exponential is 0 in any precision,
and so is every product with it. A block of rows then needs no columns beyond its last row's index.
Whether that holds is read off the expressions: each element there is 0, low, moderate, or unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import torch

from ..functions.attention import AFTER, MASKED
from ..graph import scalar
from ..graph.ir import Node, Op
from ..graph.scalar import Expr, var
from ..language.network import constant_leaf, constant_name
from .streams import Stream, wide_of

ZERO, LOW, MODERATE, UNKNOWN = "zero", "low", "moderate", "unknown"
QUERY, KEY = "query", "key"  # the index of a row, and of a column
BOUNDED = frozenset({ZERO, MODERATE, QUERY, KEY})


def hides(stream: Stream) -> bool:
    """Whether no sink of a stream depends on columns beyond the index of their row."""
    found: dict[Node, str] = {}
    wide = set(wide_of(stream))
    for node in stream.nodes:
        states = [found.get(x, MODERATE) for x in node.inputs]
        found[node] = _state(node, states) if node in wide else MODERATE
    return all(n not in wide and _is_blind(n, wide, found) for n in stream.writes)


def _is_blind(sink: Node, wide: set[Node], found: Mapping[Node, str]) -> bool:
    """Whether a sink is the same without what is hidden."""
    harmless = LOW if sink.op in (Op.ROW_MAX, Op.LOG_SUM_EXP, Op.SAMPLE) else ZERO
    return all(found[x] == harmless for x in sink.inputs if x in wide)


def _state(node: Node, states: Sequence[str]) -> str:
    """Returns what is known of the hidden elements of a wide value."""
    if node.op is Op.MAP:
        return _value(node["expr"], states)
    if node.op is Op.BROADCAST:
        return _index(node) or MODERATE
    return MODERATE


def _index(node: Node) -> str | None:
    """Returns of what a copied vector of indices is the index."""
    (x,) = node.inputs
    if len(x.shape) != 1 or x.op is not Op.INPUT or x["name"] != _name_of_indices(x.shape[0]):
        return None
    rank = len(node.shape)
    (kept,) = (axis for axis in range(rank) if axis not in node["axes"])
    return {rank - 2: QUERY, rank - 1: KEY}.get(kept)


@cache
def _name_of_indices(count: int) -> str:
    """Returns the name of the leaf 0, 1, … count − 1."""
    values = torch.arange(count).double()
    return constant_leaf(constant_name(values), values)["name"]


def _value(expr: Expr, states: Sequence[str]) -> str:
    """Returns what is known of an expression where a key comes after its query."""
    if expr.op == "var":
        return states[int(expr.value or 0)]
    if expr.op == "const":
        number = float(expr.value or 0.0)
        return ZERO if number == 0.0 else LOW if number <= 0.5 * MASKED else MODERATE
    if expr.op == "where":
        return _branch(expr, states)
    args = [_value(a, states) for a in expr.args]
    if expr.op == "add":
        return _sum(args)
    if expr.op == "mul":
        return _product(expr, args)
    if expr.op == "exp" and args == [LOW]:
        return ZERO
    return MODERATE if BOUNDED.issuperset(args) else UNKNOWN


def _sum(args: Sequence[str]) -> str:
    if UNKNOWN in args:
        return UNKNOWN
    if LOW in args:
        return LOW
    return ZERO if set(args) == {ZERO} else MODERATE


def _product(expr: Expr, args: Sequence[str]) -> str:
    if ZERO in args:
        return ZERO
    if BOUNDED.issuperset(args):
        return MODERATE
    factor, _ = scalar.coefficient(expr)
    scaled = len(args) == 2 and args[1] == LOW and expr.args[0].op == "const" and factor > 0
    return LOW if scaled else UNKNOWN


def _branch(expr: Expr, states: Sequence[str]) -> str:
    condition, then, otherwise = expr.args[:3]
    if QUERY in states and KEY in states:
        indices = {0: var(states.index(QUERY)), 1: var(states.index(KEY))}
        if condition is scalar.substitute(AFTER, indices):
            return _value(then, states)
    if _value(condition, states) in (LOW, ZERO):
        return _value(otherwise, states)
    both = {_value(then, states), _value(otherwise, states)}
    if len(both) == 1:
        return both.pop()
    return MODERATE if both <= BOUNDED else UNKNOWN
