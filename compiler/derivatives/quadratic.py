"""Quadratic forms vᵢᵀHvⱼ from the adjoints of the gradient, without an R-backward pass.

    d²L[u, v] = Σ_nodes ⟨adjoint of the output, d²op[u̇, v̇]⟩

The second differential of an op at its inputs' tangents is 0 for a linear op, Σ_ij ∂_ij φ u̇_i v̇_j
for an elementwise map, f(u̇_a, v̇_W) + f(v̇_a, u̇_W) for a bilinear one, f(a, W), and the covariance of
u̇ and v̇ under a row's softmax for log Σ eˣ. One table has a rule for each op.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from itertools import combinations_with_replacement

from ..graph import ops, scalar
from ..graph.ir import CONTRACTIONS, Node, Op, topological
from ..graph.scalar import var
from .jvp import JVP, Tangents, row_dot

Rule = Callable[[Node, Tangents, Tangents], Node | None]


def _zero(node: Node, u: Tangents, v: Tangents) -> Node | None:
    """Leaves out the second differential, which is zero."""
    return None


def _map(node: Node, u: Tangents, v: Tangents) -> Node | None:
    """Returns Σ_ij ∂_ij φ(x) u̇_i v̇_j."""
    operands: list[Node] = list(node.inputs)
    terms = []
    for i, u_dot in enumerate(u):
        for j, v_dot in enumerate(v):
            curvature = scalar.derivative(scalar.derivative(node["expr"], i), j)
            if u_dot is not None and v_dot is not None and curvature is not scalar.ZERO:
                terms.append(curvature * var(len(operands)) * var(len(operands) + 1))
                operands += [u_dot, v_dot]
    return ops.map_(scalar.add(*terms), *operands) if terms else None


def _product(node: Node, x: Node | None, w: Node | None) -> Node | None:
    """Returns f(x, w) without the bias, None where an operand is zero."""
    return None if x is None or w is None else ops.remake(node, (x, w))


def _bilinear(node: Node, u: Tangents, v: Tangents) -> Node | None:
    """Returns f(u̇_a, v̇_W) + f(v̇_a, u̇_W)."""
    first = _product(node, u[0], v[1])
    if u is v:
        return None if first is None else ops.scale(first, 2.0)
    return ops.add(first, _product(node, v[0], u[1]))


def _log_sum_exp(node: Node, u: Tangents, v: Tangents) -> Node | None:
    """Returns Σ_k p_k (u̇_k − Σ_j p_j u̇_j) (v̇_k − Σ_j p_j v̇_j) with the softmax p of the row."""
    (u_dot,), (v_dot,) = u, v
    if u_dot is None or v_dot is None:
        return None
    p, last = ops.softmax(node.inputs[0]), (ops.rank(u_dot) - 1,)
    means = (ops.broadcast(row_dot(p, x), x.shape, last) for x in (u_dot, v_dot))
    expr = var(0) * (var(1) - var(3)) * (var(2) - var(4))
    return ops.reduce_sum(ops.map_(expr, p, u_dot, v_dot, *means), last)


SECOND: dict[Op, Rule] = {
    **dict.fromkeys(JVP, _zero),
    Op.MAP: _map,
    **dict.fromkeys(CONTRACTIONS, _bilinear),
    Op.LOG_SUM_EXP: _log_sum_exp,
}


def quadratic_forms(
    loss: Node,
    adjoints: Mapping[Node, Node],
    directions: Sequence[Mapping[Node, Node]],
    *,
    two_products: bool = True,
) -> dict[tuple[int, int], Node]:
    """Returns the scalars d²loss[vᵢ, vⱼ] by (i, j), i ≤ j.

    Args:
        loss: the scalar that is differentiated.
        adjoints: ∂loss/∂node for the nodes between the directions' nodes and the loss.
        directions: the directions vᵢ; each gives tangents of the same nodes (parameters, or the
            network's outputs).
        two_products: whether R-forward goes by `TwoProducts`, two products a layer, or by the plain
            rules, three products a layer.

    Raises:
        MissingRule: an op has no rule.
    """
    rules = TwoProducts() if two_products else Plain()
    tangents: list[dict[Node, Node | None]] = [dict(d) for d in directions]
    terms: dict[tuple[int, int], list[Node]] = {}
    for node in topological([loss], stop=directions[0].__contains__):
        if node in directions[0]:
            rules.source(node, [d[node] for d in directions])
            continue
        x_dots = [[t[i] for i in node.inputs] for t in tangents]
        for t, y_dot in zip(tangents, rules.forward(node, x_dots), strict=True):
            t[node] = y_dot
        for i, j in combinations_with_replacement(range(len(directions)), 2):
            second = rules.second(node, x_dots, i, j) if node in adjoints else None
            if second is not None:
                terms.setdefault((i, j), []).append(_weighted(adjoints[node], second))
    pairs = combinations_with_replacement(range(len(directions)), 2)
    return {pair: ops.add(*terms.get(pair, [])) or ops.const(0.0) for pair in pairs}


def _weighted(adjoint: Node, second: Node) -> Node:
    """Returns ⟨adjoint, second⟩, of sums as one sum of their terms."""
    if second.op is Op.REDUCE_SUM:
        (terms,) = second.inputs
        return ops.dot(ops.broadcast(adjoint, terms.shape, second["axes"]), terms)
    return ops.dot(adjoint, second)


class Plain:
    """The rules of the tables: W⋆ȧ and V⋆a for the tangent, V⋆ȧ for the second differential."""

    def source(self, node: Node, tangents: Sequence[Node]) -> None:
        """Takes note of a node whose tangents are given."""

    def forward(self, node: Node, x_dots: Sequence[Tangents]) -> list[Node | None]:
        """Returns the node's tangent in each direction."""
        rule = ops.rule_of(JVP, node, "jvp")
        return [rule(node, d) if any(t is not None for t in d) else None for d in x_dots]

    def second(self, node: Node, x_dots: Sequence[Tangents], i: int, j: int) -> Node | None:
        """Returns d²op at the inputs' tangents in directions i and j."""
        return ops.rule_of(SECOND, node, "second differential")(node, x_dots[i], x_dots[j])


def _dividing(x: scalar.Expr, y: scalar.Expr) -> scalar.Expr:
    """Returns x/y, and 0 where y is not positive."""
    return scalar.where(y, x / scalar.where(y, y, 1.0), 0.0)


class TwoProducts(Plain):
    """Two products a layer instead of three (Karatsuba's idea), since s = f(a, W) is known.

        q = f(ȧ, V)        ṡ = [f(a + tȧ, W + tV) − s − t² q] / t

    The number t balances the terms; where it is ten times off, the rounding error is larger by a
    factor of 5 at most. It is taken from the parameters alone, t = 1 / max(‖V‖/‖W‖, Σ over the
    layers below), so that a + tȧ can be written by the kernel that computes ȧ. Mixed forms polarise
    with the same t, by one more product per pair.

    Attributes:
        load: the estimate of ‖ẋ‖/‖x‖ of a node x in each direction, None where nothing is known.
        products: q and t of a node in each direction.
    """

    def __init__(self) -> None:
        self.load: dict[Node, list[Node | None]] = {}
        self.products: dict[Node, list[tuple[Node, Node]]] = {}

    def source(self, node: Node, tangents: Sequence[Node]) -> None:
        """Takes ‖V‖/‖W‖ as the node's load, and 0 where W is 0."""
        norm = ops.dot(node, node)
        ratio = scalar.sqrt(_dividing(var(0), var(1)))
        self.load[node] = [ops.map_(ratio, ops.dot(t, t), norm) for t in tangents]

    def forward(self, node: Node, x_dots: Sequence[Tangents]) -> list[Node | None]:
        """Returns ṡ by the formula above where both operands move, by the plain rule elsewhere."""
        nothing: list[Node | None] = [None] * len(x_dots)
        below = [self.load.get(i, nothing) for i in node.inputs] or [nothing]
        bilinear = node.op in CONTRACTIONS
        self.load[node] = [
            ops.add(*loads[:2]) if bilinear else _largest(loads)
            for loads in zip(*below, strict=True)
        ]
        if not bilinear or any(t is None for d in x_dots for t in d[:2]):
            return super().forward(node, x_dots)
        results: list[Node | None] = []
        for d, x_load, w_load in zip(x_dots, *below[:2], strict=True):
            t = _step(_largest([x_load, w_load]))
            shifted = (_shift(a, a_dot, t) for a, a_dot in zip(node.inputs, d, strict=True))
            total = ops.remake(node, tuple(shifted))
            q = ops.remake(node, (d[0], d[1]))
            expr = (var(0) - var(1)) / var(3) - var(2) * var(3)
            results.append(ops.map_(expr, total, node, q, ops.broadcast(t, node.shape)))
            self.products.setdefault(node, []).append((q, t))
        return results

    def second(self, node: Node, x_dots: Sequence[Tangents], i: int, j: int) -> Node | None:
        """Returns d²op at the inputs' tangents in directions i and j.

        It is 2q for i = j, and elsewhere, with a product for the pair,

            [f(tᵢȧᵢ + tⱼȧⱼ, tᵢVᵢ + tⱼVⱼ) − tᵢ² qᵢ − tⱼ² qⱼ] / (tᵢ tⱼ).
        """
        if node not in self.products:
            return super().second(node, x_dots, i, j)
        (q_i, t_i), (q_j, t_j) = self.products[node][i], self.products[node][j]
        if i == j:
            return ops.scale(q_i, 2.0)
        mixed = ops.remake(
            node,
            tuple(
                ops.map_(
                    var(0) * var(2) + var(1) * var(3),
                    u,
                    v,
                    *(ops.broadcast(t, u.shape) for t in (t_i, t_j)),
                )
                for u, v in zip(x_dots[i][:2], x_dots[j][:2], strict=True)
                if u is not None and v is not None
            ),
        )
        t_i, t_j = (ops.broadcast(t, node.shape) for t in (t_i, t_j))
        expr = (var(0) - var(1) * var(3) * var(3) - var(2) * var(4) * var(4)) / (var(3) * var(4))
        return ops.map_(expr, mixed, q_i, q_j, t_i, t_j)


def _largest(loads: Sequence[Node | None]) -> Node | None:
    """Returns the largest of the loads that are known, None if there are none."""
    known = list(dict.fromkeys(x for x in loads if x is not None))
    larger = scalar.where(var(0) - var(1), var(0), var(1))
    return reduce(lambda x, y: ops.map_(larger, x, y), known) if known else None


def _step(load: Node | None) -> Node:
    """Returns t = 1/load, and 1 where nothing is known."""
    if load is None:
        return ops.const(1.0)
    positive = scalar.where(var(0), var(0), 1.0)
    return ops.map_(scalar.reciprocal(positive), load)


def _shift(x: Node, x_dot: Node | None, t: Node) -> Node:
    """Returns x + t ẋ."""
    if x_dot is None:
        return x
    return ops.map_(var(0) + var(1) * var(2), x, x_dot, ops.broadcast(t, x.shape))
