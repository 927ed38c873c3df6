"""Elementwise ops: an ATen name → the scalar expression, or what makes it of the op's options."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from ..functions import activations
from ..functions.embedding import fixed
from ..functions.shapes import cut
from ..graph import ops, scalar
from ..graph.errors import NewtritonError
from ..graph.ir import Node
from ..graph.scalar import Expr
from .dropout import Uniform, below, shifted
from .site import Rule, Site, Value, axis_of, number_of, reshaped

HALF = (torch.float16, torch.bfloat16)
FLOATING = (torch.float32, torch.float64)
INTEGRAL = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def positive(x: Expr) -> Expr:
    """Returns 1 where x > 0, and 0 elsewhere."""
    return scalar.where(x, 1.0, 0.0)


def equal(x: Expr, y: Expr) -> Expr:
    """Returns 1 where x = y, and 0 elsewhere."""
    return 1.0 - positive(x - y) - positive(y - x)


def chosen(condition: Expr, x: Expr, y: Expr) -> Expr:
    """Returns x where a condition, 0 or 1, is 1, and y elsewhere."""
    return scalar.where(condition, x, y)


UNARY: dict[str, Callable[[Expr], Expr]] = {
    "relu": activations.relu,
    "relu6": lambda x: activations.hardtanh(x, 0.0, 6.0),
    "sigmoid": scalar.sigmoid,
    "tanh": scalar.tanh,
    "silu": activations.silu,
    "mish": activations.mish,
    "hardswish": activations.hardswish,
    "hardsigmoid": activations.hardsigmoid,
    "log_sigmoid": activations.log_sigmoid,
    "selu": activations.selu,
    "exp": scalar.exp,
    "exp2": lambda x: scalar.exp(x * math.log(2.0)),
    "expm1": lambda x: scalar.exp(x) - 1.0,
    "log": scalar.log,
    "log2": lambda x: scalar.log(x) * (1 / math.log(2.0)),
    "log10": lambda x: scalar.log(x) * (1 / math.log(10.0)),
    "log1p": lambda x: scalar.log(1.0 + x),
    "sqrt": scalar.sqrt,
    "rsqrt": lambda x: scalar.reciprocal(scalar.sqrt(x)),
    "reciprocal": scalar.reciprocal,
    "square": lambda x: x * x,
    "neg": lambda x: -x,
    "abs": activations.absolute,
    "sign": lambda x: positive(x) - positive(-x),
    "erf": scalar.erf,
    "erfc": lambda x: 1.0 - scalar.erf(x),
    "sin": scalar.sin,
    "cos": scalar.cos,
    "tan": lambda x: scalar.sin(x) / scalar.cos(x),
    "sinh": lambda x: 0.5 * scalar.exp(x) - 0.5 * scalar.exp(-x),
    "cosh": lambda x: 0.5 * scalar.exp(x) + 0.5 * scalar.exp(-x),
    "logical_not": lambda x: equal(x, scalar.ZERO),
    "clone": lambda x: x,
    "alias": lambda x: x,
    "contiguous": lambda x: x,
    "lift_fresh_copy": lambda x: x,
    "positive": lambda x: x,
}

BINARY: dict[str, Callable[[Expr, Expr], Expr]] = {
    "mul": scalar.mul,
    "maximum": activations.maximum,
    "minimum": activations.minimum,
    "gt": lambda x, y: positive(x - y),
    "lt": lambda x, y: positive(y - x),
    "ge": lambda x, y: 1.0 - positive(y - x),
    "le": lambda x, y: 1.0 - positive(x - y),
    "eq": equal,
    "ne": lambda x, y: positive(x - y) + positive(y - x),
    "logical_and": lambda x, y: (1.0 - equal(x, scalar.ZERO)) * (1.0 - equal(y, scalar.ZERO)),
    "logical_or": lambda x, y: 1.0 - equal(x, scalar.ZERO) * equal(y, scalar.ZERO),
    "logical_xor": lambda x, y: 1.0 - equal(equal(x, scalar.ZERO), equal(y, scalar.ZERO)),
}
# Of truth values these are what the logical ops are; of integers they are not taken.
BITWISE = {"bitwise_and": "logical_and", "bitwise_or": "logical_or", "bitwise_xor": "logical_xor"}


def _unary(function: Callable[[Expr], Expr]) -> Callable[..., Node]:
    return lambda site, x, *_: site.map(function, x)


def _binary(function: Callable[[Expr, Expr], Expr]) -> Callable[..., Node]:
    return lambda site, x, y, *_: site.map(function, x, y)


def _bitwise(function: Callable[..., Expr]) -> Callable[..., Node]:
    def rule(site: Site, *operands: Value) -> Node:
        if site.meta.dtype is not torch.bool:
            raise NewtritonError("bits of integers are not taken: use truth values")
        return site.map(function, *operands)

    return rule


def _add(site: Site, x: Value, y: Value, alpha: float = 1) -> Node | Uniform:
    if alpha == 1 and (isinstance(x, Uniform) or isinstance(y, Uniform)):
        return shifted(site, x, y) if isinstance(x, Uniform) else shifted(site, y, x)
    return site.map(lambda a, b: a + float(alpha) * b, x, y)


def _compared(name: str) -> Callable[..., Node]:
    """A comparison, perhaps of random numbers with a number: equal ones do not come up."""

    def rule(site: Site, x: Value, y: Value) -> Node:
        if isinstance(x, Uniform):
            less = below(site, x, y)
            return less if name in ("lt", "le") else site.map(lambda a: 1.0 - a, less)
        return site.map(BINARY[name], x, y)

    return rule


def _sub(site: Site, x: Value, y: Value, alpha: float = 1) -> Node:
    return site.map(lambda a, b: a - float(alpha) * b, x, y)


def _rsub(site: Site, x: Value, y: Value, alpha: float = 1) -> Node:
    return site.map(lambda a, b: b - float(alpha) * a, x, y)


def _div(site: Site, x: Value, y: Value, rounding_mode: str | None = None) -> Node:
    if rounding_mode is not None:
        raise NewtritonError("a division that rounds has no derivative")
    return site.map(lambda a, b: a / b, x, y)


def _pow(site: Site, x: Value, y: Value) -> Node:
    exponent = number_of(y)
    if exponent is not None:
        return site.map(lambda a: scalar.power(a, scalar.evaluate(exponent, 1)), x)
    return site.map(lambda a, b: scalar.exp(b * scalar.log(a)), x, y)


def _clamp(site: Site, x: Value, low: Value, high: Value) -> Node:
    bounds = [b for b in (low, high) if b is not None]

    def function(a: Expr, *given: Expr) -> Expr:
        rest = [*given]
        below = rest.pop(0) if low is not None else None
        return activations.clamp(a, below, rest.pop(0) if high is not None else None)

    return site.map(function, x, *bounds)


def _with_numbers(function: Callable[..., Expr]) -> Callable[..., Node]:
    """A function of one operand and of numbers."""
    return lambda site, x, *numbers: site.map(lambda a: function(a, *map(float, numbers)), x)


def _prelu(site: Site, x: Value, slope: Value) -> Node:
    """A slope for all elements, or one for each channel, the second axis."""
    node, slopes = site.node(x), site.node(slope)
    if slopes.shape != (1,):
        slopes = reshaped(slopes, (*slopes.shape, *[1] * (ops.rank(node) - 2)))
    return site.map(activations.leaky_relu, node, slopes)


def _glu(site: Site, x: Value, dim: int) -> Node:
    """The first half times σ of the second."""
    node = site.node(x)
    axis = axis_of(dim, ops.rank(node))
    half = node.shape[axis] // 2
    gate = cut(node, axis, half, 2 * half)
    return site.map(lambda a, b: a * scalar.sigmoid(b), cut(node, axis, 0, half), gate)


def _where(site: Site, condition: Value, x: Value, y: Value) -> Node:
    return site.map(chosen, condition, x, y)


def _masked_fill(site: Site, x: Value, mask: Value, value: Value) -> Node:
    return site.map(lambda a, m, v: chosen(m, v, a), x, mask, value)


def _copied(site: Site, x: Value, dtype: torch.dtype | None = None, *_: object) -> Node:
    """A copy in a dtype: floats stay what they are, truth values are asked for."""
    if dtype in HALF:
        raise NewtritonError(
            f"a cast to {dtype}: the model computes in one dtype, leave autocast and such casts out"
        )
    if isinstance(x, Node) and (dtype is None or dtype in FLOATING):
        return site.map(lambda a: a, x)
    if dtype is torch.bool:
        return site.map(lambda a: 1.0 - equal(a, scalar.ZERO), x)
    source = site.call.all_input_nodes[0].meta["val"].dtype
    if source not in INTEGRAL:
        raise NewtritonError(f"a cast from {source} to {dtype} rounds: it has no derivative")
    return site.node(x)


POINTWISE: dict[str, Rule] = {
    **{name: _unary(function) for name, function in UNARY.items()},
    **{name: _binary(function) for name, function in BINARY.items()},
    **{name: _compared(name) for name in ("lt", "le", "gt", "ge")},
    **{name: _bitwise(BINARY[logical]) for name, logical in BITWISE.items()},
    "bitwise_not": _bitwise(UNARY["logical_not"]),
    "add": _add,
    "sub": _sub,
    "rsub": _rsub,
    "div": _div,
    "true_divide": _div,
    "pow": _pow,
    "clamp": _clamp,
    "clamp_min": lambda site, x, low: _clamp(site, x, low, None),
    "clamp_max": lambda site, x, high: _clamp(site, x, None, high),
    "hardtanh": _with_numbers(activations.hardtanh),
    "threshold": _with_numbers(activations.threshold),
    "hardshrink": _with_numbers(activations.hardshrink),
    "softshrink": _with_numbers(activations.softshrink),
    "leaky_relu": _with_numbers(activations.leaky_relu),
    "elu": _with_numbers(activations.elu),
    "celu": _with_numbers(activations.celu),
    "softplus": _with_numbers(activations.softplus),
    "gelu": lambda site, x, approximate: site.map(
        lambda a: activations.gelu(a, approximate), x
    ),
    "prelu": _prelu,
    "_prelu_kernel": lambda site, x, slope: site.map(activations.leaky_relu, x, slope),
    "glu": _glu,
    "where": _where,
    "masked_fill": _masked_fill,
    "addcmul": lambda site, x, a, b, value: site.map(
        lambda x, a, b: x + float(value) * a * b, x, a, b
    ),
    "addcdiv": lambda site, x, a, b, value: site.map(
        lambda x, a, b: x + float(value) * (a / b), x, a, b
    ),
    "lerp": lambda site, x, y, w: site.map(lambda x, y, w: x + w * (y - x), x, y, w),
    "detach": lambda site, x: fixed(site.node(x)),
    "_to_copy": _copied,
    "to": _copied,
    "fill": lambda site, x, value: site.map(lambda v: v, value),
    "copy": lambda site, x, source, *_: site.map(lambda v: v, source),
}  # fmt: skip
