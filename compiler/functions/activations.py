"""Elementwise functions as scalar expressions, with PyTorch's formulas and parameters.

Branches are chosen so that derivatives at kinks are PyTorch's: at the condition 0 a `where` takes
its second branch.
"""

from __future__ import annotations

import math

from ..graph import scalar
from ..graph.scalar import Expr, branch, where

Operand = Expr | float


def relu(x: Expr) -> Expr:
    """Returns max(x, 0), with derivative 0 at 0."""
    return where(x, x, 0.0)


def leaky_relu(x: Expr, slope: Operand) -> Expr:
    """Returns x where x > 0 and slope·x elsewhere; the slope may be another operand."""
    return where(x, x, slope * x)


def threshold(x: Expr, bound: float, value: float) -> Expr:
    """Returns x where x > bound, and a number elsewhere."""
    return where(x - bound, x, value)


def hardtanh(x: Expr, low: float = -1.0, high: float = 1.0) -> Expr:
    """Returns x between two bounds, and the bound beyond, with derivative 0 at the bounds."""
    return where(x - low, where(high - x, x, high), low)


def hardsigmoid(x: Expr) -> Expr:
    """Returns x/6 + 1/2 between −3 and 3, and 0 or 1 beyond."""
    return where(x + 3.0, where(3.0 - x, x / 6.0 + 0.5, 1.0), 0.0)


def hardswish(x: Expr) -> Expr:
    """Returns x(x + 3)/6 between −3 and 3, and 0 or x beyond (Howard et al. 2019)."""
    return where(x + 3.0, where(3.0 - x, x * (x + 3.0) / 6.0, x), 0.0)


def hardshrink(x: Expr, width: float = 0.5) -> Expr:
    """Returns x where |x| > width, and 0 elsewhere."""
    return where(x - width, x, where(-x - width, x, 0.0))


def softshrink(x: Expr, width: float = 0.5) -> Expr:
    """Returns x less its part between −width and width."""
    return where(x - width, x - width, where(-x - width, x + width, 0.0))


def tanhshrink(x: Expr) -> Expr:
    """Returns x − tanh(x)."""
    return x - scalar.tanh(x)


def elu(x: Expr, alpha: float = 1.0, scale: float = 1.0, inner: float = 1.0) -> Expr:
    """Returns scale·x where x > 0, and scale·α(e^(inner·x) − 1) elsewhere.

    Its derivative at 0 is that of the second formula, and its second derivative there 0.
    """
    above, slope = scale * x, scale * alpha * inner
    kink = above if slope == scale else where(x, above, slope * x)
    return where(-x, (scale * alpha) * (scalar.exp(inner * x) - 1.0), kink)


def selu(x: Expr) -> Expr:
    """Returns the scaled ELU that normalises itself (Klambauer et al. 2017)."""
    return elu(x, 1.6732632423543772848170429916717, 1.0507009873554804934193349852946)


def celu(x: Expr, alpha: float = 1.0) -> Expr:
    """Returns the ELU whose derivative is continuous for every α (Barron 2017)."""
    return elu(x, alpha, 1.0, 1.0 / alpha)


def silu(x: Expr) -> Expr:
    """Returns x·σ(x)."""
    return x * scalar.sigmoid(x)


def mish(x: Expr) -> Expr:
    """Returns x·tanh(softplus(x)) (Misra 2019)."""
    return x * scalar.tanh(scalar.softplus(x))


def gelu(x: Expr, approximate: str = "none") -> Expr:
    """Returns x·Φ(x), or its approximation by "tanh"."""
    if approximate == "none":
        return x * (0.5 * (1.0 + scalar.erf(x * math.sqrt(0.5))))
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)
    return x * (0.5 * (1.0 + scalar.tanh(inner)))


def softplus(x: Expr, beta: float = 1.0, bound: float = math.inf) -> Expr:
    """Returns log(1 + e^βx)/β, and x where βx > bound."""
    smooth = scalar.softplus(x * beta) / beta
    return smooth if bound == math.inf else where(x * beta - bound, x, smooth)


def log_sigmoid(x: Expr) -> Expr:
    """Returns log σ(x)."""
    return -scalar.softplus(-x)


def softsign(x: Expr) -> Expr:
    """Returns x/(1 + |x|)."""
    return x / (1.0 + absolute(x))


def absolute(x: Expr) -> Expr:
    """Returns |x|, with derivative 0 at 0."""
    return where(x, x, where(-x, -x, 0.0))


def clamp(x: Expr, low: Operand | None = None, high: Operand | None = None) -> Expr:
    """Returns min(max(x, low), high); at a bound the derivative is that of x.

    It is 0 there from PyTorch 2.15 on.
    """
    if low is not None:
        x = where(low - x, low, x)
    return x if high is None else where(x - high, high, x)


def maximum(x: Expr, y: Expr) -> Expr:
    """Returns the larger of two numbers; equal ones share the derivative."""
    return branch(x - y, x, branch(y - x, y, 0.5 * x + 0.5 * y))


def minimum(x: Expr, y: Expr) -> Expr:
    """Returns the smaller of two numbers; equal ones share the derivative."""
    return branch(y - x, x, branch(x - y, y, 0.5 * x + 0.5 * y))
