"""Elementwise ops: an ATen name → the scalar expression, or what makes it of the op's options."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from ..graph import scalar
from ..graph.errors import NewtritonError
from ..graph.ir import Node
from ..graph.scalar import Expr
from .site import Site, Value, number_of

FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def positive(x: Expr) -> Expr:
    """Returns 1 where x > 0, and 0 elsewhere."""
    return scalar.where(x, 1.0, 0.0)


def relu(x: Expr) -> Expr:
    """Returns max(x, 0)."""
    return scalar.where(x, x, 0.0)


def magnitude(x: Expr) -> Expr:
    """Returns |x|, whose derivative is 0 at 0."""
    return scalar.where(x, x, scalar.where(-x, -x, 0.0))


def largest(x: Expr, y: Expr) -> Expr:
    """Returns max(x, y); the two share its derivative where they are equal."""
    return scalar.where(x - y, x, scalar.where(y - x, y, 0.5 * x + 0.5 * y))


def least(x: Expr, y: Expr) -> Expr:
    """Returns min(x, y); the two share its derivative where they are equal."""
    return scalar.where(x - y, y, scalar.where(y - x, x, 0.5 * x + 0.5 * y))


def clamped(x: Expr, low: Expr | None, high: Expr | None) -> Expr:
    """Returns x within bounds; its derivative is 1 at the bounds, as in PyTorch."""
    if high is not None:
        x = scalar.where(x - high, high, x)
    if low is not None:
        x = scalar.where(low - x, low, x)
    return x


def equal(x: Expr, y: Expr) -> Expr:
    """Returns 1 where x = y, and 0 elsewhere."""
    return 1.0 - positive(x - y) - positive(y - x)


def chosen(condition: Expr, x: Expr, y: Expr) -> Expr:
    """Returns x where a condition, 0 or 1, is 1, and y elsewhere."""
    return scalar.where(condition, x, y)


def hardsigmoid(x: Expr) -> Expr:
    """Returns x/6 + 1/2 within 0 and 1, with derivative 0 at the bounds, as in PyTorch."""
    inside = x * (1 / 6) + 0.5
    return scalar.where(x + 3.0, scalar.where(3.0 - x, inside, 1.0), 0.0)


def hardswish(x: Expr) -> Expr:
    """Returns x·hardsigmoid(x)."""
    return scalar.where(x + 3.0, scalar.where(3.0 - x, x * (x * (1 / 6) + 0.5), x), 0.0)


def gelu(x: Expr, approximate: str) -> Expr:
    """Returns x·Φ(x), or the approximation by tanh."""
    if approximate == "none":
        return x * (0.5 * (1.0 + scalar.erf(x * math.sqrt(0.5))))
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)
    return x * (0.5 * (1.0 + scalar.tanh(inner)))


def elu(x: Expr, alpha: float, scale: float, inner: float) -> Expr:
    """Returns scale·x above 0, and scale·α(e^(inner·x) − 1) below."""
    below = scalar.where(x, 0.0, x)  # so that the exponential of a large number is never taken
    return scalar.where(x, scale * x, (scalar.exp(inner * below) - 1.0) * (scale * alpha))


def softplus(x: Expr, beta: float, threshold: float) -> Expr:
    """Returns log(1 + e^βx)/β."""
    return scalar.softplus(x * beta) * (1 / beta)


UNARY: dict[str, Callable[[Expr], Expr]] = {
    "relu": relu,
    "relu6": lambda x: scalar.where(x, scalar.where(6.0 - x, x, 6.0), 0.0),
    "sigmoid": scalar.sigmoid,
    "tanh": scalar.tanh,
    "silu": lambda x: x * scalar.sigmoid(x),
    "mish": lambda x: x * scalar.tanh(scalar.softplus(x)),
    "hardswish": hardswish,
    "hardsigmoid": hardsigmoid,
    "log_sigmoid": lambda x: -scalar.softplus(-x),
    "selu": lambda x: elu(x, 1.6732632423543772, 1.0507009873554805, 1.0),
    "softsign": lambda x: x / (1.0 + magnitude(x)),
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
    "abs": magnitude,
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
    "detach_": lambda x: x,
    "contiguous": lambda x: x,
    "lift_fresh_copy": lambda x: x,
    "positive": lambda x: x,
}

BINARY: dict[str, Callable[[Expr, Expr], Expr]] = {
    "mul": scalar.mul,
    "maximum": largest,
    "minimum": least,
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


def _add(site: Site, x: Value, y: Value, alpha: float = 1) -> Node:
    return site.map(lambda a, b: a + float(alpha) * b, x, y)


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
        return clamped(a, below, rest.pop(0) if high is not None else None)

    return site.map(function, x, *bounds)


def _where(site: Site, condition: Value, x: Value, y: Value) -> Node:
    return site.map(chosen, condition, x, y)


def _masked_fill(site: Site, x: Value, mask: Value, value: Value) -> Node:
    return site.map(lambda a, m, v: chosen(m, v, a), x, mask, value)


def _copied(site: Site, x: Value, dtype: torch.dtype | None = None, *_: object) -> Node:
    """A copy in a dtype: floats stay what they are, truth values are asked for."""
    if isinstance(x, Node) and (dtype is None or dtype in FLOATING):
        return site.map(lambda a: a, x)
    if dtype is torch.bool:
        return site.map(lambda a: 1.0 - equal(a, scalar.ZERO), x)
    source = site.call.all_input_nodes[0].meta["val"].dtype
    if source in FLOATING:
        raise NewtritonError(f"a cast from {source} to {dtype} rounds: it has no derivative")
    return site.node(x)


POINTWISE: dict[str, Callable[..., Node]] = {
    **{name: _unary(function) for name, function in UNARY.items()},
    **{name: _binary(function) for name, function in BINARY.items()},
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
    "hardtanh": lambda site, x, low, high: site.map(
        lambda a: scalar.where(a - float(low), scalar.where(float(high) - a, a, float(high)),
                               float(low)), x),
    "where": _where,
    "masked_fill": _masked_fill,
    "leaky_relu": lambda site, x, slope: site.map(
        lambda a: scalar.where(a, a, float(slope) * a), x
    ),
    "elu": lambda site, x, *options: site.map(lambda a: elu(a, *map(float, options)), x),
    "celu": lambda site, x, alpha: site.map(lambda a: elu(a, alpha, 1.0, 1.0 / alpha), x),
    "gelu": lambda site, x, approximate: site.map(lambda a: gelu(a, approximate), x),
    "softplus": lambda site, x, beta, threshold: site.map(
        lambda a: softplus(a, float(beta), threshold), x
    ),
    "addcmul": lambda site, x, a, b, value: site.map(
        lambda x, a, b: x + float(value) * a * b, x, a, b
    ),
    "addcdiv": lambda site, x, a, b, value: site.map(
        lambda x, a, b: x + float(value) * (a / b), x, a, b
    ),
    "lerp": lambda site, x, y, w: site.map(lambda x, y, w: x + w * (y - x), x, y, w),
    "_to_copy": _copied,
    "to": _copied,
    "fill": lambda site, x, value: site.map(lambda v: v, value),
    "copy": lambda site, x, source, *_: site.map(lambda v: v, source),
}  # fmt: skip
