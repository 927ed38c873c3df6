"""Adjoints: the transpose of each op in each of its operands, and reverse mode from them.

Every op is linear in an operand, or elementwise; of an elementwise op the linear part of its jvp is
transposed. A rule takes the node, an operand's position and the output's adjoint `ct` to the
operand's adjoint, or to None where that is zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

from ..graph import ops, scalar
from ..graph.ir import Node, Op, topological
from .associating import Products
from .jvp import shares_of_maximum

Rule = Callable[[Node, int, Node], Node | None]


def _zero(node: Node, i: int, ct: Node) -> Node | None:
    """Leaves out the adjoint, which is zero."""
    return None


def _map(node: Node, i: int, ct: Node) -> Node | None:
    """Returns x̄_i = ∂_i f(x) ȳ."""
    slope = scalar.derivative(node["expr"], i)
    if slope is scalar.ZERO:
        return None
    return ops.map_(slope * scalar.var(len(node.inputs)), *node.inputs, ct)


def _sum_lead(x: Node, like: Node) -> Node:
    """Sums over the lead axes that the operand `like` did not have."""
    return ops.reduce_sum(x, range(ops.rank(x) - ops.rank(like)))


def _one_matrix(x: Node) -> Node:
    """Returns the matrices of a stack one below the other."""
    return x if ops.rank(x) == 2 else ops.reshape(x, (math.prod(x.shape[:-1]), x.shape[-1]))


def _matmul(node: Node, i: int, ct: Node) -> Node:
    """Returns X̄ = Ȳ Wᵀ, W̄ = Xᵀ Ȳ or b̄ = Σ_rows Ȳ of Y = X W + b, transposed where X or W is."""
    x, y, *_ = node.inputs
    ta, tb = node["transpose_a"], node["transpose_b"]
    if i == 1 and ops.rank(y) == 2 and not ta:  # its rows are those of all matrices of the stack
        x, ct = _one_matrix(x), _one_matrix(ct)
    if i == 0:
        x_ct = ops.matmul(y, ct, ta=tb, tb=True) if ta else ops.matmul(ct, y, tb=not tb)
        return _sum_lead(x_ct, x)
    if i == 1:
        if ops.rank(y) == 2 and not ta:
            x, ct = ops.rows(x), ops.rows(ct)
        y_ct = ops.matmul(ct, x, ta=True, tb=ta) if tb else ops.matmul(x, ct, ta=not ta)
        return _sum_lead(y_ct, y)
    return ops.reduce_sum(ct, range(ops.rank(ct) - 1))


_WINDOW = ("stride", "padding", "dilation", "groups")


def _window(node: Node) -> dict[str, object]:
    """Returns the attributes that the ops of a convolution share."""
    return {k: node[k] for k in _WINDOW}


def conv_input_grad(ct: Node, w: Node, like: Node, window: Mapping[str, object]) -> Node:
    """Returns Wᵀ⋆s̄, of the size of the image `like`."""
    return ops.make(Op.CONV_INPUT_GRAD, ct, w, size=like.shape[-3:-1], **window)


def conv_weight_grad(ct: Node, x: Node, like: Node, window: Mapping[str, object]) -> Node:
    """Returns s̄⊛a, of the size of the weights `like`."""
    return ops.make(Op.CONV_WEIGHT_GRAD, ct, x, kernel=like.shape[1:3], **window)


def _conv(node: Node, i: int, ct: Node) -> Node:
    """Returns ā = Wᵀ⋆s̄, W̄ = s̄⊛a or b̄ = Σ s̄ over samples and pixels, for s = W⋆a + b."""
    x, w, *_ = node.inputs
    if i == 0:
        return conv_input_grad(ct, w, x, _window(node))
    if i == 1:
        return conv_weight_grad(ct, x, w, _window(node))
    return ops.reduce_sum(ct, range(ops.rank(ct) - 1))


def _conv_input_grad(node: Node, i: int, ct: Node) -> Node:
    """Transposes Wᵀ⋆g in g, which gives W⋆c̄, and in W, which gives g⊛c̄."""
    g, w = node.inputs
    if i == 0:
        return ops.make(Op.CONV, ct, w, **_window(node))
    return conv_weight_grad(g, ct, w, _window(node))


def _conv_weight_grad(node: Node, i: int, ct: Node) -> Node:
    """Transposes g⊛x in g, which gives C̄⋆x, and in x, which gives C̄ᵀ⋆g."""
    g, x = node.inputs
    if i == 0:
        return ops.make(Op.CONV, x, ct, **_window(node))
    return conv_input_grad(g, ct, x, _window(node))


def _reduce_sum(node: Node, i: int, ct: Node) -> Node:
    """Copies the adjoint along the axes that were summed."""
    return ops.broadcast(ct, node.inputs[0].shape, node["axes"])


def _broadcast(node: Node, i: int, ct: Node) -> Node:
    """Sums the adjoint over the axes that were copied."""
    return ops.reduce_sum(ct, node["axes"])


def _reshape(node: Node, i: int, ct: Node) -> Node:
    """Gives the adjoint the operand's shape."""
    return ops.reshape(ct, node.inputs[0].shape)


def _transpose(node: Node, i: int, ct: Node) -> Node:
    """Permutes the axes back."""
    order = node["order"]
    return ops.transpose(ct, [order.index(k) for k in range(len(order))])


def _slice(node: Node, i: int, ct: Node) -> Node:
    """Puts zeros where the slice left elements out."""
    size = node.inputs[0].shape[node["axis"]]
    return ops.make(Op.PAD, ct, axis=node["axis"], low=node["start"], high=size - node["stop"])


def _pad(node: Node, i: int, ct: Node) -> Node:
    """Cuts off what was padded."""
    stop = node["low"] + node.inputs[0].shape[node["axis"]]
    return ops.make(Op.SLICE, ct, axis=node["axis"], start=node["low"], stop=stop)


def _concat(node: Node, i: int, ct: Node) -> Node:
    """Cuts out the part of operand i."""
    axis = node["axis"]
    start = sum(x.shape[axis] for x in node.inputs[:i])
    return ops.make(Op.SLICE, ct, axis=axis, start=start, stop=start + node.inputs[i].shape[axis])


def _avg_pool(node: Node, i: int, ct: Node) -> Node:
    """Spreads the adjoint over the windows."""
    return ops.make(Op.AVG_UNPOOL, ct, size=node.inputs[0].shape[-3:-1], **node.attributes)


def _avg_unpool(node: Node, i: int, ct: Node) -> Node:
    """Averages the adjoint over the windows."""
    return ops.make(Op.AVG_POOL, ct, **{k: v for k, v in node.attributes.items() if k != "size"})


def _gather_max(node: Node, i: int, ct: Node) -> Node | None:
    """Adds the adjoint at the places of the maxima; their indices have none."""
    x, index = node.inputs
    size = x.shape[-3:-1]
    return ops.make(Op.SCATTER_MAX, ct, index, size=size, **node.attributes) if i == 0 else None


def _scatter_max(node: Node, i: int, ct: Node) -> Node | None:
    """Reads the adjoint at the places of the maxima; their indices have none."""
    attributes = {k: v for k, v in node.attributes.items() if k != "size"}
    return ops.make(Op.GATHER_MAX, ct, node.inputs[1], **attributes) if i == 0 else None


def _gather_rows(node: Node, i: int, ct: Node) -> Node | None:
    """Adds the adjoint's rows to those of the table; their indices have none."""
    table, index = node.inputs
    return ops.make(Op.SCATTER_ROWS, ct, index, size=table.shape[-2]) if i == 0 else None


def _scatter_rows(node: Node, i: int, ct: Node) -> Node | None:
    """Reads the adjoint's rows; their indices have none."""
    return ops.make(Op.GATHER_ROWS, ct, node.inputs[1]) if i == 0 else None


def _row_max(node: Node, i: int, ct: Node) -> Node | None:
    """Gives a row's largest elements equal parts; a softmax's stabiliser counts as a constant."""
    if node["stabiliser"]:
        return None
    (x,) = node.inputs
    return ops.multiply(shares_of_maximum(node), ops.broadcast(ct, x.shape, (ops.rank(x) - 1,)))


def _log_sum_exp(node: Node, i: int, ct: Node) -> Node:
    """Shares the adjoint out along the row as its softmax says."""
    (x,) = node.inputs
    return ops.multiply(ops.softmax(x), ops.broadcast(ct, x.shape, (ops.rank(x) - 1,)))


def _all_sum(node: Node, i: int, ct: Node) -> Node:
    """Adds the adjoints of all ranks: each rank's part of the loss depends on every summand."""
    return ops.all_sum(ct)


TRANSPOSE: dict[Op, Rule] = {
    Op.MAP: _map,
    Op.MATMUL: _matmul,
    Op.CONV: _conv,
    Op.CONV_INPUT_GRAD: _conv_input_grad,
    Op.CONV_WEIGHT_GRAD: _conv_weight_grad,
    Op.REDUCE_SUM: _reduce_sum,
    Op.BROADCAST: _broadcast,
    Op.RESHAPE: _reshape,
    Op.TRANSPOSE: _transpose,
    Op.SLICE: _slice,
    Op.PAD: _pad,
    Op.CONCAT: _concat,
    Op.AVG_POOL: _avg_pool,
    Op.AVG_UNPOOL: _avg_unpool,
    Op.ARGMAX_POOL: _zero,
    Op.GATHER_MAX: _gather_max,
    Op.SCATTER_MAX: _scatter_max,
    Op.GATHER_ROWS: _gather_rows,
    Op.SCATTER_ROWS: _scatter_rows,
    Op.ONE_HOT: _zero,
    Op.SAMPLE: _zero,
    Op.ROW_MAX: _row_max,
    Op.LOG_SUM_EXP: _log_sum_exp,
    Op.ALL_SUM: _all_sum,
}


def vjp(adjoints: Mapping[Node, Node], wrt: Iterable[Node]) -> dict[Node, Node]:
    """Returns the adjoints of all nodes between some outputs and `wrt`, both included.

    Nodes that do not depend on `wrt` are not entered; a node whose adjoint is zero is missing.

    Args:
        adjoints: the adjoints of the outputs.
        wrt: the nodes at which to end.

    Raises:
        MissingRule: an op has no rule in `TRANSPOSE`.
    """
    sources = set(wrt)
    order = topological(adjoints, stop=sources.__contains__)
    depends = set(sources)
    for node in order:
        if any(i in depends for i in node.inputs):
            depends.add(node)
    result = dict(adjoints)
    parts: dict[Node, list[Node]] = {}
    products = Products(order)
    for node in reversed(order):
        if node in parts:
            given = [result[node]] if node in result else []
            result[node] = ops.total([*given, *parts.pop(node)])
        if node not in result or node in sources:
            continue
        for i, x in enumerate(node.inputs):
            if x in depends:
                ct = ops.rule_of(TRANSPOSE, node, "transpose")(node, i, result[node])
                if ct is not None:
                    ct = products.associated(ct)
                    parts.setdefault(x, []).append(ct)
    return result
