"""Error bounds of scalar expressions: what rounding may do to an element of a map.

With x ± e for every argument and the unit τ of the arithmetic, the bounds are

    Σ xᵢ              Σ eᵢ + τ Σ |xᵢ|; of two terms Σ eᵢ + τ |Σ xᵢ|
    −x                e
    Π xᵢ              Π (|xᵢ| + eᵢ) − Π |xᵢ| + τ |Π xᵢ|
    f(x)              max |f(x ± s) − f(x)| + τ |f(x)|  with s = e + τ |x|, for a monotone f
    rounding of x     max |r(x ± e) − r(x)|: exact, unless x is near a boundary
    where(c, a, b)    the bound of the branch, and |a − b| besides where |c| < e_c

    sin x, cos x      s + τ

Every other function of the expressions is monotone, 1/x on either side of 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache, reduce

import torch
from torch import Tensor

from ...compiler.graph import ops, scalar
from ...compiler.graph.ir import N
from ...compiler.graph.scalar import Expr
from ...compiler.lowering.precision import ROUNDED
from ..aten.pointwise import Pointwise
from ..backend import Context
from .bounded import Bounded

Rule = Callable[[Sequence[Bounded], float], Bounded]

# The least argument at which a function is defined.
LEAST = {"sqrt": 0.0, "log": 0.0}


def bound_expression(
    expr: Expr, operands: Sequence[Bounded], context: Context, unit: float
) -> Bounded:
    """Returns the value of an expression and its error bound.

    Args:
        expr: the expression of a map.
        operands: the operands of the map.
        context: the batch size, and float64 on the device of the operands.
        unit: the relative error τ of one operation.
    """
    found: dict[Expr, Bounded] = {}
    for e in scalar.subexpressions([expr]):
        if e.op == "var":
            found[e] = operands[int(e.value or 0)]
        elif not e.args:
            number = scalar.evaluate(e, context.batch)
            found[e] = Bounded(torch.tensor(number, dtype=context.dtype, device=context.device))
        elif e.op == "mul" and len(e.args) == 2 and scalar.coefficient(e)[0] == -1.0:
            found[e] = found[e.args[1]]._replace(value=-found[e.args[1]].value)
        elif e.op in _RULES:
            found[e] = _RULES[e.op]([found[a] for a in e.args], unit)
        else:
            found[e] = _function(e.op, found[e.args[0]], context, unit)
    return found[expr]


def _sum(terms: Sequence[Bounded], unit: float) -> Bounded:
    total = reduce(torch.add, [x.value for x in terms])
    if len(terms) == 2:  # rounded once
        return Bounded(total, unit * total.abs() + terms[0].error + terms[1].error)
    every = reduce(torch.add, [x.error + unit * x.value.abs() for x in terms])
    return Bounded(total, every)


def _product(factors: Sequence[Bounded], unit: float) -> Bounded:
    product = reduce(torch.mul, [x.value for x in factors])
    error = unit * product.abs()
    if not all(x.exact for x in factors):
        error = error + reduce(torch.mul, [x.magnitude for x in factors]) - product.abs()
    return Bounded(product, error)


def _where(arguments: Sequence[Bounded], unit: float) -> Bounded:
    condition, a, b, *_ = arguments  # a fourth is for NaN, which no oracle is given
    positive = condition.value > 0
    value = torch.where(positive, a.value, b.value)
    error = torch.where(positive, a.spread, b.spread)
    if condition.exact:
        return Bounded(value, error)
    either = (a.value - b.value).abs() + torch.maximum(a.spread, b.spread)
    return Bounded(value, torch.where(condition.value.abs() < condition.error, either, error))


def _power(arguments: Sequence[Bounded], unit: float) -> Bounded:
    x, exponent = arguments
    reach = x.error + unit * x.value.abs()
    ends = (x.value - reach).clamp(min=0.0), x.value + reach
    value, below, above = (torch.pow(at, exponent.value) for at in (x.value, *ends))
    error = torch.maximum((value - below).abs(), (above - value).abs()) + unit * value.abs()
    return Bounded(value, error * (1 + unit))


def _wave(function: Callable[[Tensor], Tensor]) -> Rule:
    """Returns the rule of a function whose slope is at most 1."""

    def rule(arguments: Sequence[Bounded], unit: float) -> Bounded:
        (x,) = arguments
        return Bounded(function(x.value), x.error + unit * (x.value.abs() + 1.0))

    return rule


_RULES: dict[str, Rule] = {
    "add": _sum,
    "mul": _product,
    "where": _where,
    "power": _power,
    "sin": _wave(torch.sin),
    "cos": _wave(torch.cos),
}


def _function(name: str, x: Bounded, context: Context, unit: float) -> Bounded:
    """Returns a function at x, and how far it is from there at the ends of the bound around x."""
    if name in ROUNDED and x.exact:
        return Bounded(_apply(name, x.value, context))
    own = 0.0 if name in ROUNDED else unit
    reach = x.error + own * x.value.abs()
    low, high = x.value - reach, x.value + reach
    if name in LEAST:
        low = low.clamp(min=LEAST[name])
    value, below, above = (_apply(name, at, context) for at in (x.value, low, high))
    error = torch.maximum((value - below).abs(), (above - value).abs()) + own * value.abs()
    if name == "reciprocal":
        error = error.where(low * high > 0, math.inf)
    # A rounding that falls the other way errs by all of it.
    return Bounded(value, error * (1 + unit))


def _apply(name: str, x: Tensor, context: Context) -> Tensor:
    """Returns a function of every element, by the oracle's operator."""
    flat = context._replace(batch=x.numel())
    return _operator(name).single(flat, x.reshape(-1)).view_as(x)


@cache
def _operator(name: str) -> Pointwise:
    """Returns the oracle's operator of a function, for as many elements as the context says."""
    node = ops.map_(scalar.unary(name, scalar.var(0)), ops.input_("x", (N,)))
    return Pointwise([node], [node])
