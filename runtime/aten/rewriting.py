"""Less work on large values: what is there, or does not vary along an axis, is not computed again.

Three rules, by value (common subexpressions and loop-invariant code motion; Aho, Lam, Sethi &
Ullman 2006, sections 9.1 and 9.5):

- a function in a map that another map has computed of the same operands is read from there;
- a part of a map that reads only copies of one shape is computed before it is copied;
- a factor that does not vary along the axes of a sum is taken out of it, term by term.

The derivative of tanh then reads tanh, as PyTorch's does. A batch norm takes one product and one
addition an element, and its backward pass two passes: one for the sums, one for the adjoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...compiler.functions.shapes import count
from ...compiler.graph import ops, scalar
from ...compiler.graph.ir import LEAVES, Graph, Node, Op
from ...compiler.graph.scalar import Expr, var
from ...compiler.streaming.wide import recomputed

Axes = tuple[int, ...]
Given = frozenset[Node]  # nodes whose operands are not at hand
Call = tuple[Expr, tuple[Node, ...]]  # a function of one element of its operands
ARITHMETIC = frozenset({"var", "const", "batch", "add", "mul", "where"})  # is not looked up


def rewritten(graph: Graph) -> dict[Node, Node]:
    """Returns by node of the graph what is computed instead; leaves and given nodes stay.

    Args:
        graph: what to run.
    """
    new: dict[Node, Node] = {}
    nodes = graph.nodes()
    passing, known = recomputed(nodes), dict[Call, Node]()
    for node in nodes:
        at_hand = node.op in LEAVES or node in graph.given
        inputs = tuple(new.get(x, x) if at_hand else new[x] for x in node.inputs)
        if at_hand:
            new[node] = node
        elif node.op is Op.MAP:
            new[node] = _hoisted(*_reusing(node["expr"], inputs, known), graph.given)
        elif node.op is Op.REDUCE_SUM:
            new[node] = _sum(inputs[0], node["axes"], graph.given)
        else:
            new[node] = ops.remake(node, inputs)
        if node.op is Op.MAP and node not in passing and (call := _call(node["expr"], inputs)):
            known.setdefault(call, new[node])
    return new


def _call(expr: Expr, inputs: Sequence[Node]) -> Call | None:
    """Returns a function and its operands, in an order of their own; None for arithmetic."""
    if expr.op in ARITHMETIC:
        return None
    places = scalar.operands(expr)
    operands = sorted({inputs[i] for i in places}, key=id)
    names = {i: var(operands.index(inputs[i])) for i in places}
    return scalar.substitute(expr, names), tuple(operands)


def _reusing(
    expr: Expr, inputs: Sequence[Node], known: Mapping[Call, Node]
) -> tuple[Expr, Sequence[Node]]:
    """Returns an expression and its operands, functions that are known being among these."""
    operands, new = list(inputs), dict[Expr, Expr]()
    for part in scalar.subexpressions([expr]):
        call = _call(part, inputs)
        if call is None or call not in known:
            new[part] = scalar.rebuild(part, [new[a] for a in part.args])
            continue
        if known[call] not in operands:
            operands.append(known[call])
        new[part] = var(operands.index(known[call]))
    return new[expr], operands


def _map(expr: Expr, inputs: Sequence[Node]) -> Node:
    """Returns a map of those operands that its expression reads."""
    places = scalar.operands(expr) or (0,)
    names = {place: var(i) for i, place in enumerate(places)}
    if expr.op == "var":
        return inputs[places[0]]
    return ops.map_(scalar.substitute(expr, names), *(inputs[i] for i in places))


def _hoisted(expr: Expr, inputs: Sequence[Node], given: Given) -> Node:
    """Returns a map whose parts that read only copies along equal axes are taken before these."""
    operands = list(inputs)
    copies: dict[tuple, set[int]] = {}
    for i, x in enumerate(inputs):
        if x.op is Op.BROADCAST and x not in given:
            copies.setdefault((x.inputs[0].shape, x["axes"]), set()).add(i)
    for places in copies.values():
        expr = _lift(expr, places, operands)
    return _map(expr, operands)


def _lift(expr: Expr, places: set[int], operands: list[Node]) -> Expr:
    """Returns an expression whose parts of operands at `places` are operands of their own."""
    if expr.op == "var" or places.isdisjoint(scalar.operands(expr)):
        return expr
    if _reads_only(expr, places):
        return _lifted(expr, operands)
    args = list(expr.args)
    if expr.op in ("add", "mul"):
        own = [a for a in args if _reads_only(a, places)]
        whole = scalar.add(*own) if expr.op == "add" else scalar.mul(*own)
        if _is_worth(whole):
            rest = [a for a in args if a not in own]
            args = [_lifted(whole, operands), *rest]
            expr = scalar.add(*args) if expr.op == "add" else scalar.mul(*args)
            args = list(expr.args)
    return scalar.rebuild(
        expr,
        [
            _lift(a, places, operands) if _is_worth(a) or not _reads_only(a, places) else a
            for a in args
        ],
    )


def _reads_only(expr: Expr, places: set[int]) -> bool:
    """Whether an expression reads no other operands."""
    return set(scalar.operands(expr)) <= places


def _is_worth(part: Expr) -> bool:
    """Whether a part saves calls: a coefficient of one operand costs none in a sum."""
    reads = scalar.operands(part)
    return bool(reads) and scalar.coefficient(part)[1].op != "var"


def _lifted(part: Expr, operands: list[Node]) -> Expr:
    """Returns the operand that is a part of copies, taken before they are copied."""
    first = operands[scalar.operands(part)[0]]
    sources = {i: operands[i].inputs[0] for i in scalar.operands(part)}
    small = _map(part, [sources.get(i, x) for i, x in enumerate(operands)])
    operands.append(ops.broadcast(small, first.shape, first["axes"]))
    return var(len(operands) - 1)


def _sum(x: Node, axes: Axes, given: Given) -> Node:
    """Returns the sum of a value, without the factors that do not vary along its axes."""
    return _pulled(var(0), (x,), axes, given) or ops.reduce_sum(x, axes)


def _pulled(expr: Expr, inputs: Sequence[Node], axes: Axes, given: Given) -> Node | None:
    """Returns the sum of a map as products of smaller sums; None where nothing is pulled out."""
    if expr.op == "var":
        x = inputs[scalar.operands(expr)[0]]
        if _is_invariant(x, axes, given):
            return ops.scale(_without(x, axes), count(x.shape[i] for i in axes))
        return (
            _pulled(x["expr"], x.inputs, axes, given) if x.op is Op.MAP and x not in given else None
        )
    if expr.op == "add":
        sums = [_pulled(term, inputs, axes, given) for term in expr.args]
        found = [s for s in sums if s is not None]
        return ops.total(found) if len(found) == len(sums) else None
    return _pulled_product(expr.args, inputs, axes, given) if expr.op == "mul" else None


def _pulled_product(
    factors: Sequence[Expr], inputs: Sequence[Node], axes: Axes, given: Given
) -> Node | None:
    """Returns the sum of a product as what does not vary times the sum of the rest."""
    fixed = [f for f in factors if all(_is_invariant(inputs[i], axes, given) for i in f.operands)]
    rest = scalar.mul(*(f for f in factors if f not in fixed))
    if not scalar.operands(rest):
        return None
    inner = _pulled(rest, inputs, axes, given) if rest.op == "var" else None
    if inner is None:
        if not any(scalar.operands(f) for f in fixed):
            return None
        inner = ops.reduce_sum(_map(rest, inputs), axes)
    places = sorted({i for f in fixed for i in scalar.operands(f)})
    small = {i: var(1 + k) for k, i in enumerate(places)}
    product = scalar.substitute(scalar.mul(*fixed), small) * var(0)
    return ops.map_(product, inner, *(_without(inputs[i], axes) for i in places))


def _is_invariant(x: Node, axes: Axes, given: Given) -> bool:
    """Whether a value is copied along all of the axes."""
    return x.op is Op.BROADCAST and x not in given and set(axes) <= set(x["axes"])


def _without(x: Node, axes: Axes) -> Node:
    """Returns a copied value without some of the axes along which it is copied."""
    kept = [i for i in range(ops.rank(x)) if i not in axes]
    copied = [k for k, i in enumerate(kept) if i in x["axes"]]
    return ops.broadcast(x.inputs[0], tuple(x.shape[i] for i in kept), copied)
