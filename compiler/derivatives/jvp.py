"""Tangents: the R-operator's forward pass, R_v{·}, as a graph transformation.

One rule per op takes the node and its inputs' tangents (None is a symbolic zero) to the tangent of
its output. Exact rules: Pearlmutter (1994); FITRE's appendix has misprints and is not followed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from ..graph import ops, scalar
from ..graph.ir import Node, Op, topological

Tangents = Sequence[Node | None]
Rule = Callable[[Node, Tangents], Node | None]


def _zero(node: Node, tangents: Tangents) -> Node | None:
    """Leaves out the tangent, which is zero."""
    return None


def _linear(node: Node, tangents: Tangents) -> Node | None:
    """Applies an op that is linear in its first operand; the others, indices, have no tangent."""
    x_dot = tangents[0]
    return None if x_dot is None else ops.remake(node, (x_dot, *node.inputs[1:]))


def _map(node: Node, tangents: Tangents) -> Node | None:
    """Returns ẏ = Σ_i ∂_i f(x) ẋ_i, one map over the operands and those tangents that are not 0."""
    x_dots = [(i, t) for i, t in enumerate(tangents) if t is not None]
    expr = scalar.add(
        *(
            scalar.derivative(node["expr"], i) * scalar.var(len(node.inputs) + k)
            for k, (i, _) in enumerate(x_dots)
        )
    )
    return None if expr is scalar.ZERO else ops.map_(expr, *node.inputs, *(t for _, t in x_dots))


def _bilinear(node: Node, tangents: Tangents) -> Node | None:
    """Returns ṡ = f(ẋ, w) + f(x, ẇ) + ḃ, where ḃ is added by either product."""
    x, w, *_ = node.inputs
    x_dot, w_dot, *b_dot = tangents
    bias = tuple(b for b in b_dot if b is not None)
    terms = []
    if w_dot is not None:
        terms.append(ops.remake(node, (x, w_dot, *bias)))
        bias = ()
    if x_dot is not None:
        terms.append(ops.remake(node, (x_dot, w, *bias)))
        bias = ()
    for b in bias:
        terms.append(ops.broadcast(b, node.shape))
    return ops.add(*terms)


def _concat(node: Node, tangents: Tangents) -> Node | None:
    """Joins the tangents, zeros in place of those that are missing."""
    if all(t is None for t in tangents):
        return None
    zero = ops.const(0.0)
    parts = (
        ops.broadcast(zero, x.shape) if t is None else t
        for x, t in zip(node.inputs, tangents, strict=True)
    )
    return ops.remake(node, tuple(parts))


def shares_of_maximum(node: Node) -> Node:
    """Returns the share of each element of a row in its maximum: 1/k where k are the largest."""
    (x,) = node.inputs
    along = (ops.rank(x) - 1,)
    largest = scalar.branch(scalar.var(1) - scalar.var(0), 0.0, 1.0)
    largest_ones = ops.map_(largest, x, ops.broadcast(node, x.shape, along))
    count = ops.broadcast(ops.reduce_sum(largest_ones, along), x.shape, along)
    return ops.map_(scalar.var(0) / scalar.var(1), largest_ones, count)


def _row_max(node: Node, tangents: Tangents) -> Node | None:
    """Returns the mean tangent of a row's largest elements; none of a softmax's stabiliser."""
    if node["stabiliser"] or tangents[0] is None:
        return None
    x_dot = ops.multiply(tangents[0], shares_of_maximum(node))
    return ops.reduce_sum(x_dot, (ops.rank(x_dot) - 1,))


def row_dot(p: Node, x: Node) -> Node:
    """Returns Σ_k p_k x_k of every row."""
    return ops.reduce_sum(ops.multiply(p, x), (ops.rank(x) - 1,))


def _log_sum_exp(node: Node, tangents: Tangents) -> Node | None:
    """Returns Σ_k p_k ẋ_k with the softmax p of the row."""
    (x_dot,) = tangents
    return None if x_dot is None else row_dot(ops.softmax(node.inputs[0]), x_dot)


JVP: dict[Op, Rule] = {
    Op.INPUT: _zero,
    Op.PARAM: _zero,
    Op.CONST: _zero,
    Op.MAP: _map,
    Op.MATMUL: _bilinear,
    Op.CONV: _bilinear,
    Op.CONV_INPUT_GRAD: _bilinear,
    Op.CONV_WEIGHT_GRAD: _bilinear,
    Op.REDUCE_SUM: _linear,
    Op.BROADCAST: _linear,
    Op.RESHAPE: _linear,
    Op.TRANSPOSE: _linear,
    Op.SLICE: _linear,
    Op.PAD: _linear,
    Op.CONCAT: _concat,
    Op.AVG_POOL: _linear,
    Op.AVG_UNPOOL: _linear,
    Op.ARGMAX_POOL: _zero,
    Op.GATHER_MAX: _linear,
    Op.SCATTER_MAX: _linear,
    Op.GATHER_ROWS: _linear,
    Op.SCATTER_ROWS: _linear,
    Op.ONE_HOT: _zero,
    Op.SAMPLE: _zero,
    Op.ROW_MAX: _row_max,
    Op.LOG_SUM_EXP: _log_sum_exp,
    Op.ALL_SUM: _linear,
}


def jvp(outputs: Iterable[Node], tangents: Mapping[Node, Node]) -> dict[Node, Node | None]:
    """Returns the tangent of every node below `outputs`, None where it is zero.

    Args:
        outputs: the nodes below which to look.
        tangents: the tangents of some nodes; leaves that are not among them have none.

    Raises:
        MissingRule: an op has no rule in `JVP`.
    """
    result: dict[Node, Node | None] = dict(tangents)
    for node in topological(outputs, stop=tangents.__contains__):
        if node not in result:
            x_dots = [result[i] for i in node.inputs]
            moving = any(t is not None for t in x_dots)
            result[node] = ops.rule_of(JVP, node, "jvp")(node, x_dots) if moving else None
    return result
