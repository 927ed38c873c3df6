"""One constructor and one type rule per op: what is a valid node, and what it gives.

Conventions: images are (*lead, H, W, C), where lead is (N,) or (copies, N); convolution weights
(O, kh, kw, C/groups); matrices (*lead, rows, columns); tables of rows (*lead, rows, columns), an
index into them any shape of its own. `axes` are never negative.

The constructors below `make` are what losses and layers of your own are written in.

Examples:
    >>> import newtriton as nt
    >>> x, w = nt.ops.input_("x", (5, 4)), nt.ops.param("w", (3, 4))
    >>> nt.ops.matmul(x, w, tb=True)
    matmul(5×4, 3×4) → 5×3
    >>> nt.ops.reduce_sum(nt.ops.multiply(x, x), axes=(1,)).shape
    (5,)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from . import scalar
from .errors import MissingRule, ShapeError
from .ir import Dim, Node, Op, Shape, Type, is_batched, per_sample, product, show
from .scalar import Expr

Pair = tuple[int, int]


def window_size(size: Shape, kernel: Shape, stride: Pair, padding: Pair, dilation: Pair) -> Pair:
    """Returns a convolution's or pool's output size, ⌊(h + 2p − d(k−1) − 1)/s⌋ + 1 on each axis.

    Raises:
        ShapeError: no window fits.
    """
    h, w = (
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True)
    )
    if h < 1 or w < 1:
        raise ShapeError(
            f"a {show(kernel)} window with stride {show(stride)}, padding {show(padding)} and "
            f"dilation {show(dilation)} does not fit a {show(size)} image: use a smaller kernel or "
            "more padding"
        )
    return h, w


def rank(node: Node) -> int:
    """Returns the number of axes."""
    return len(node.shape)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ShapeError(message)


def _size(shape: Shape) -> tuple[int, int]:
    """Returns the number of elements of a sample, and how many dimensions are multiples of N."""
    return per_sample(shape), sum(map(is_batched, shape))


# --- type rules: (input types, attributes) → type -------------------------------------------------


def _leaf(inputs: Sequence[Type], a: dict[str, Any]) -> Type:
    return Type(tuple(a.get("shape", ())), a.get("kind", "float"))


def _map(inputs: Sequence[Type], a: dict[str, Any]) -> Type:
    _require(
        len({t.shape for t in inputs}) == 1,
        f"map needs equal shapes, got {[str(t) for t in inputs]}",
    )
    _require(
        set(scalar.operands(a["expr"])) <= set(range(len(inputs))),
        f"map of {len(inputs)} operands reads {scalar.operands(a['expr'])}",
    )
    return Type(inputs[0].shape)


def _matmul(inputs: Sequence[Type], a: dict[str, Any]) -> Type:
    x, y, *bias = (t.shape for t in inputs)
    lead = max(x[:-2], y[:-2], key=len)
    _require(
        all(lead[len(lead) - len(s) :] == s for s in (x[:-2], y[:-2])),
        f"matmul of {show(x)} and {show(y)}: lead axes",
    )
    m, k = x[-2:][::-1] if a["transpose_a"] else x[-2:]
    k2, n = y[-2:][::-1] if a["transpose_b"] else y[-2:]
    _require(k == k2, f"matmul contracts {k} with {k2}")
    _require(
        all(b == (n,) for b in bias), f"the bias of a matmul with {n} columns has shape {bias}"
    )
    return Type((*lead, m, n))


def _conv(inputs: Sequence[Type], a: dict[str, Any]) -> Type:
    x, w, *bias = (t.shape for t in inputs)
    _require(len(x) >= 4 and len(w) == 4, f"conv of {show(x)} with weights {show(w)}")
    channels, (o, kh, kw, c) = x[len(x) - 1], w
    _require(
        channels == c * a["groups"],
        f"conv of {channels} channels with weights for {c} in {a['groups']} groups",
    )
    _require(o % a["groups"] == 0, f"{o} output channels do not divide into {a['groups']} groups")
    _require(all(b == (o,) for b in bias), f"the bias of a conv with {o} channels has shape {bias}")
    size = window_size(x[-3:-1], (kh, kw), a["stride"], a["padding"], a["dilation"])
    return Type((*x[:-3], *size, o))


def _conv_input_grad(inputs: Sequence[Type], a: dict[str, Any]) -> Type:
    ct, w = (t.shape for t in inputs)
    result = Type((*ct[:-3], *a["size"], w[-1] * a["groups"]))
    _require(
        _conv([result, inputs[1]], a) == inputs[0], f"conv_input_grad of {show(ct)} to {result}"
    )
    return result


def _conv_weight_grad(inputs: Sequence[Type], a: dict[str, Any]) -> Type:
    ct, x = (t.shape for t in inputs)
    result = Type((ct[-1], *a["kernel"], x[-1] // a["groups"]))
    _require(
        _conv([inputs[1], result], a) == inputs[0], f"conv_weight_grad of {show(ct)} and {show(x)}"
    )
    return result


def _reduce_sum(inputs: Sequence[Type], a: dict[str, Any]) -> Type:
    return Type(tuple(d for i, d in enumerate(inputs[0].shape) if i not in a["axes"]))


def _broadcast(inputs: Sequence[Type], a: dict[str, Any]) -> Type:
    kept = tuple(d for i, d in enumerate(a["shape"]) if i not in a["axes"])
    _require(
        kept == inputs[0].shape, f"broadcast of {inputs[0]} to {show(a['shape'])} along {a['axes']}"
    )
    return Type(a["shape"], inputs[0].kind)


def _reshape(inputs: Sequence[Type], a: dict[str, Any]) -> Type:
    _require(
        _size(inputs[0].shape) == _size(a["shape"]), f"reshape of {inputs[0]} to {show(a['shape'])}"
    )
    return Type(a["shape"], inputs[0].kind)


def _transpose(inputs: Sequence[Type], a: dict[str, Any]) -> Type:
    x = inputs[0]
    _require(sorted(a["order"]) == list(range(len(x.shape))), f"transpose of {x} by {a['order']}")
    return Type(tuple(x.shape[i] for i in a["order"]), x.kind)


def _with_axis(x: Type, axis: int, size: int) -> Type:
    return Type((*x.shape[:axis], size, *x.shape[axis + 1 :]), x.kind)


def _slice(inputs: Sequence[Type], a: dict[str, Any]) -> Type:
    _require(0 <= a["start"] < a["stop"] <= inputs[0].shape[a["axis"]], f"slice {a} of {inputs[0]}")
    return _with_axis(inputs[0], a["axis"], a["stop"] - a["start"])


def _pad(inputs: Sequence[Type], a: dict[str, Any]) -> Type:
    return _with_axis(inputs[0], a["axis"], a["low"] + inputs[0].shape[a["axis"]] + a["high"])


def _concat(inputs: Sequence[Type], a: dict[str, Any]) -> Type:
    axis, first = a["axis"], inputs[0]
    _require(
        len({_with_axis(t, axis, 0) for t in inputs}) == 1, f"concat of {[str(t) for t in inputs]}"
    )
    return _with_axis(first, axis, sum(t.shape[axis] for t in inputs))


def _pool(inputs: Sequence[Type], a: dict[str, Any]) -> Type:
    x = inputs[0].shape
    _require(len(x) >= 4, f"a pool needs an image, got {show(x)}")
    _require(
        all(2 * p <= k for p, k in zip(a["padding"], a["kernel"], strict=True)),
        f"pool padding {show(a['padding'])} is more than half of the window {show(a['kernel'])}",
    )
    size = window_size(x[-3:-1], a["kernel"], a["stride"], a["padding"], a.get("dilation", (1, 1)))
    return Type((*x[:-3], *size, x[-1]))


def _unpool(inputs: Sequence[Type], a: dict[str, Any]) -> Type:
    ct = inputs[0].shape
    result = Type((*ct[:-3], *a["size"], ct[-1]))
    _require(_pool([result], a) == inputs[0], f"unpool of {show(ct)} to {result}")
    return result


def _gather_max(inputs: Sequence[Type], a: dict[str, Any]) -> Type:
    x, index = inputs
    _require(
        index.kind == "int" and x.shape[-1] == index.shape[-1], f"gather_max of {x} at {index}"
    )
    return Type((*x.shape[:-3], *index.shape[-3:]))


def _scatter_max(inputs: Sequence[Type], a: dict[str, Any]) -> Type:
    ct, index = inputs
    _require(
        index.kind == "int" and ct.shape[-3:] == index.shape[-3:], f"scatter_max of {ct} at {index}"
    )
    return Type((*ct.shape[:-3], *a["size"], ct.shape[-1]))


def _one_hot(inputs: Sequence[Type], a: dict[str, Any]) -> Type:
    _require(inputs[0].kind == "int", f"one_hot of {inputs[0]}")
    return Type((*inputs[0].shape, a["classes"]))


def _gather_rows(inputs: Sequence[Type], a: dict[str, Any]) -> Type:
    table, index = inputs
    _require(index.kind == "int" and len(table.shape) >= 2, f"gather_rows of {table} at {index}")
    columns = table.shape[len(table.shape) - 1]
    return Type((*table.shape[:-2], *index.shape, columns))


def _scatter_rows(inputs: Sequence[Type], a: dict[str, Any]) -> Type:
    ct, index = inputs
    result = Type((*ct.shape[: -1 - len(index.shape)], a["size"], ct.shape[-1]))
    _require(_gather_rows([result, index], {}) == ct, f"scatter_rows of {ct} at {index}")
    return result


def _sample(inputs: Sequence[Type], a: dict[str, Any]) -> Type:
    z, u = inputs
    _require(u.shape[-1:] == z.shape[:1], f"sample from {z} by uniforms {u}")
    return Type(u.shape, "int")


def _gram(inputs: Sequence[Type], a: dict[str, Any]) -> Type:
    groups, columns = a["groups"], inputs[0].shape[-1]
    d = columns // groups + a.get("homogeneous", False)
    return Type((d, d) if groups == 1 else (groups, d, d))


def _patch_gram(inputs: Sequence[Type], a: dict[str, Any]) -> Type:
    x = inputs[0].shape
    window_size(x[-3:-1], a["kernel"], a["stride"], a["padding"], a["dilation"])
    d = math.prod(a["kernel"]) * (x[-1] // a["groups"]) + a["homogeneous"]
    return Type((d, d) if a["groups"] == 1 else (a["groups"], d, d))


def _spectral(inputs: Sequence[Type], a: dict[str, Any]) -> Type:
    x = inputs[0]
    _require(x.shape[-1] == x.shape[-2], f"spectral takes symmetric matrices, got {x}")
    return x


def _all_sum(inputs: Sequence[Type], a: dict[str, Any]) -> Type:
    x = inputs[0]
    _require(
        x.kind == "float" and not any(map(is_batched, x.shape)),
        f"all_sum of {x}: ranks may have different numbers of samples, sum over these first",
    )
    return x


TYPE: dict[Op, Callable[[Sequence[Type], dict[str, Any]], Type]] = {
    Op.INPUT: _leaf,
    Op.PARAM: _leaf,
    Op.CONST: _leaf,
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
    Op.AVG_POOL: _pool,
    Op.AVG_UNPOOL: _unpool,
    Op.ARGMAX_POOL: lambda inputs, a: Type(_pool(inputs, a).shape, "int"),
    Op.GATHER_MAX: _gather_max,
    Op.SCATTER_MAX: _scatter_max,
    Op.GATHER_ROWS: _gather_rows,
    Op.SCATTER_ROWS: _scatter_rows,
    Op.ONE_HOT: _one_hot,
    Op.SAMPLE: _sample,
    Op.ROW_MAX: lambda inputs, a: Type(inputs[0].shape[:-1]),
    Op.LOG_SUM_EXP: lambda inputs, a: Type(inputs[0].shape[:-1]),
    Op.GRAM: _gram,
    Op.PATCH_GRAM: _patch_gram,
    Op.SPECTRAL: _spectral,
    Op.ALL_SUM: _all_sum,
}


def make(op: Op, *inputs: Node, **attributes: Any) -> Node:
    """Returns the node of `op`, its type inferred and checked.

    Raises:
        ShapeError: the operands' types or the attributes do not fit.
    """
    return Node(op, inputs, attributes, TYPE[op]([i.type for i in inputs], attributes))


def remake(node: Node, inputs: tuple[Node, ...]) -> Node:
    """Returns the same op on other inputs."""
    return node if inputs == node.inputs else make(node.op, *inputs, **node.attributes)


def rule_of(table: dict[Op, Any], node: Node, meaning: str) -> Any:
    """Returns the node's rule from a table.

    Raises:
        MissingRule: there is none; the op, its types and where it was made are named.
    """
    if node.op not in table:
        raise MissingRule(f"no {meaning} rule for {node!r}")
    return table[node.op]


# --- constructors that add something to `make` ----------------------------------------------------


def input_(name: str, shape: Shape, kind: str = "float") -> Node:
    """Returns data that are given at run time under `name`."""
    return make(Op.INPUT, name=name, shape=shape, kind=kind)


def param(name: str, shape: Shape) -> Node:
    """Returns a parameter of the network."""
    return make(Op.PARAM, name=name, shape=shape)


def const(value: Expr | float) -> Node:
    """Returns a scalar number; an expression without operands may use the batch size."""
    return make(Op.CONST, value=value if isinstance(value, Expr) else scalar.const(value))


def map_(expr: Expr, *inputs: Node) -> Node:
    """Returns `expr` of each element of the inputs, which are of one shape."""
    return make(Op.MAP, *inputs, expr=expr)


def total(terms: Sequence[Node]) -> Node:
    """Returns the sum of at least one term."""
    if len(terms) == 1:
        return terms[0]
    return map_(scalar.add(*map(scalar.var, range(len(terms)))), *terms)


def add(*terms: Node | None) -> Node | None:
    """Returns the sum of terms, where None is a symbolic zero."""
    present = [t for t in terms if t is not None]
    return total(present) if present else None


def multiply(x: Node, y: Node) -> Node:
    """Returns the elementwise product."""
    return map_(scalar.var(0) * scalar.var(1), x, y)


def scale(x: Node, factor: Expr | float) -> Node:
    """Returns x times a number or an expression in the batch size."""
    return map_(scalar.var(0) * factor, x)


def broadcast(x: Node, shape: Shape, axes: Sequence[int] | None = None) -> Node:
    """Returns x copied along the new `axes` of `shape`, the leading ones unless given."""
    axes = range(len(shape) - rank(x)) if axes is None else axes
    return make(Op.BROADCAST, x, shape=tuple(shape), axes=tuple(axes)) if axes else x


def reduce_sum(x: Node, axes: Sequence[int] | None = None) -> Node:
    """Returns the sum over `axes`, all of them unless given."""
    axes = range(rank(x)) if axes is None else axes
    return make(Op.REDUCE_SUM, x, axes=tuple(axes)) if axes else x


def all_sum(x: Node) -> Node:
    """Returns the sum of x over all ranks, each of which holds a part of the batch.

    Where there is one rank that is x. The loss is a sum over ranks, so that the adjoint of x is the
    sum over ranks of the result's.
    """
    return make(Op.ALL_SUM, x)


def dot(x: Node, y: Node) -> Node:
    """Returns ⟨x, y⟩, a scalar."""
    return reduce_sum(multiply(x, y))


def reshape(x: Node, shape: Sequence[Dim]) -> Node:
    """Returns the same elements in another shape."""
    return make(Op.RESHAPE, x, shape=tuple(shape))


def rows(x: Node) -> Node:
    """Returns x as a matrix: all axes but the last are one."""
    return x if rank(x) == 2 else reshape(x, (product(x.shape[:-1]), x.shape[-1]))


def transpose(x: Node, order: Sequence[int]) -> Node:
    """Permutes the axes: axis i of the result is axis order[i] of x."""
    return make(Op.TRANSPOSE, x, order=tuple(order))


def row_max(x: Node, stabiliser: bool = False) -> Node:
    """Returns the maxima of rows, those of x along its last axis.

    Args:
        x: a value with at least one axis.
        stabiliser: whether it is subtracted from what does not depend on it, as in a softmax, so
            that it counts as a constant; otherwise the largest elements of a row share its
            derivative, as in `torch.amax`.
    """
    return make(Op.ROW_MAX, x, stabiliser=stabiliser)


def log_sum_exp(x: Node) -> Node:
    """Returns log Σ_k e^{x_k} of rows, those of x along its last axis, without overflow."""
    return make(Op.LOG_SUM_EXP, x)


def softmax(x: Node) -> Node:
    """Returns e^x by its sum along the row, of which the derivatives of `log_sum_exp` are made."""
    total = broadcast(log_sum_exp(x), x.shape, (rank(x) - 1,))
    return map_(scalar.exp(scalar.var(0) - scalar.var(1)), x, total)


def matmul(
    x: Node, y: Node, bias: Node | None = None, *, ta: bool = False, tb: bool = False
) -> Node:
    """Returns x y + bias over the last two axes, with x transposed if `ta` and y if `tb`."""
    operands = (x, y) if bias is None else (x, y, bias)
    return make(Op.MATMUL, *operands, transpose_a=ta, transpose_b=tb)
