"""Scalar expressions: what one element of a `map` computes.

A small interned tree, kept in a canonical form by its constructors (constants folded, sums and
products flattened and sorted, equal terms collected), differentiated symbolically, and handed to a
backend as straight-line code. Two equal expressions are one object, so backends look fused forms up
by identity.

Examples:
    >>> import newtriton as nt
    >>> z, y = nt.scalar.var(0), nt.scalar.var(1)
    >>> logistic = nt.scalar.softplus(-z * y)
    >>> nt.scalar.derivative(nt.scalar.derivative(logistic, 0), 0) is nt.scalar.ZERO
    False
    >>> nt.scalar.sigmoid(z) is nt.scalar.sigmoid(z)
    True
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from weakref import WeakValueDictionary

from .interning import interned

_interned: WeakValueDictionary[tuple, Expr] = WeakValueDictionary()


class Expr:
    """An expression: const, var, batch (the batch size N), add, mul, where, power, or a function.

    `where` is the only branch, hence the only kink. All other operations are NaN where an argument
    is; what a branch is there stands in `at_nan`.

    Attributes:
        op: the operation.
        args: its arguments.
        value: the number of a const, the index of a var, None otherwise.
        text: the expression as printed, which also orders terms and factors.
        operands: the indices of the operands that it reads, ascending.
    """

    __slots__ = ("__weakref__", "args", "op", "operands", "text", "value")
    op: str
    args: tuple[Expr, ...]
    value: float | int | None
    text: str
    operands: tuple[int, ...]

    def __new__(  # noqa: D102
        cls, op: str, args: tuple[Expr, ...] = (), value: float | int | None = None
    ) -> Expr:
        key = (op, args, value)
        found = _interned.get(key)
        return found or interned(_interned, key, lambda: cls._made(op, args, value))

    @classmethod
    def _made(cls, op: str, args: tuple[Expr, ...], value: float | int | None) -> Expr:
        made = super().__new__(cls)
        made.op, made.args, made.value = op, args, value
        made.text = _text(made)
        own = {int(value)} if op == "var" and value is not None else set[int]()
        made.operands = tuple(sorted(own.union(*(a.operands for a in args))))
        return made

    def __add__(self, other: Expr | float) -> Expr:
        return add(self, other)

    def __mul__(self, other: Expr | float) -> Expr:
        return mul(self, other)

    def __neg__(self) -> Expr:
        return mul(-1.0, self)

    def __sub__(self, other: Expr | float) -> Expr:
        return add(self, mul(-1.0, other))

    def __rsub__(self, other: Expr | float) -> Expr:
        return add(other, mul(-1.0, self))

    def __truediv__(self, other: Expr | float) -> Expr:
        return mul(self, reciprocal(other))

    def __rtruediv__(self, other: Expr | float) -> Expr:
        return mul(other, reciprocal(self))

    __radd__ = __add__
    __rmul__ = __mul__

    def __repr__(self) -> str:
        return self.text


def _text(expr: Expr) -> str:
    if expr.op == "const":
        return f"{expr.value:g}"
    if expr.op == "var":
        return f"x{expr.value}"
    if expr.op == "batch":
        return "N"
    parts = [a.text for a in expr.args]
    if expr.op == "add":
        return "(" + " + ".join(parts) + ")"
    if expr.op == "mul":
        return "*".join(parts)
    return f"{expr.op}({', '.join(parts)})"


def _by_text(expr: Expr) -> str:
    return expr.text


def const(value: float) -> Expr:
    """Returns the expression of a number."""
    return Expr("const", value=float(value))


def var(index: int) -> Expr:
    """Returns x_index, the element of the map's operand `index`."""
    return Expr("var", value=index)


LARGEST_PRODUCT = 16  # powers up to which a product is taken
BATCH = Expr("batch")
ZERO, ONE = const(0.0), const(1.0)


def _expr(x: Expr | float) -> Expr:
    return x if isinstance(x, Expr) else const(x)


def _number(x: Expr) -> float | None:
    return float(x.value) if x.op == "const" and x.value is not None else None


def coefficient(term: Expr) -> tuple[float, Expr]:
    """Returns a term as (number, rest): 3*x*y is (3, x*y). Products carry their number first."""
    if term.op == "mul" and (number := _number(term.args[0])) is not None:
        rest = term.args[1:]
        return number, rest[0] if len(rest) == 1 else Expr("mul", rest)
    return 1.0, term


def add(*terms: Expr | float) -> Expr:
    """Returns a sum, flattened, equal terms collected, the constant last."""
    total, collected = 0.0, {}
    for term in map(_expr, terms):
        for part in term.args if term.op == "add" else (term,):
            if (number := _number(part)) is not None:
                total += number
            else:
                factor, rest = coefficient(part)
                collected[rest] = collected.get(rest, 0.0) + factor
    parts = [mul(factor, rest) for rest, factor in collected.items() if factor != 0.0]
    parts.sort(key=_by_text)
    if total != 0.0:
        parts.append(const(total))
    if not parts:
        return ZERO
    return parts[0] if len(parts) == 1 else Expr("add", tuple(parts))


def mul(*factors: Expr | float) -> Expr:
    """Returns a product, flattened, the constant first; where(c, 1, 0) takes the rest inside."""
    number, parts = 1.0, []
    for factor in map(_expr, factors):
        for part in factor.args if factor.op == "mul" else (factor,):
            if (value := _number(part)) is not None:
                number *= value
            else:
                parts.append(part)
    if number == 0.0:
        return ZERO
    for i, part in enumerate(parts):
        if part.op == "where" and part.args[2] is ZERO and len(parts) + (number != 1.0) > 1:
            condition, positive, zero, *nan = part.args
            rest = parts[:i] + parts[i + 1 :]
            return _where(condition, mul(number, positive, *rest), zero, *nan)
    parts.sort(key=_by_text)
    if number != 1.0 or not parts:
        parts.insert(0, const(number))
    return parts[0] if len(parts) == 1 else Expr("mul", tuple(parts))


def where(condition: Expr, positive: Expr | float, otherwise: Expr | float) -> Expr:
    """Returns `positive` where condition > 0, `otherwise` elsewhere (at 0 too), NaN at NaN."""
    found = branch(condition, positive, otherwise)
    if found.op != "where" or _is_nan_with(at_nan(found), condition):
        return found
    return Expr("where", (*found.args, condition))


def branch(condition: Expr, positive: Expr | float, otherwise: Expr | float) -> Expr:
    """Returns the same for a condition that is a number, and for derivatives; see `at_nan`."""
    return _where(condition, _expr(positive), _expr(otherwise))


def _where(condition: Expr, *arms: Expr) -> Expr:
    return arms[0] if len({*arms}) == 1 else Expr("where", (condition, *arms))


def at_nan(expr: Expr) -> Expr:
    """Returns what a `where` is where its condition is NaN.

    Unless that is its fourth argument, it is as in PyTorch, whose `threshold_backward` leaves NaN
    out of what becomes 0, while its `leaky_relu_backward` takes it for a negative number.
    """
    _, positive, otherwise, *rest = expr.args
    return rest[0] if rest else (positive if otherwise is ZERO else otherwise)


def _is_nan_with(expr: Expr, condition: Expr) -> bool:
    """Whether an expression is known to be NaN where a condition is: it is computed from that."""
    stack, seen = [expr], set[Expr]()
    while stack:
        e = stack.pop()
        if e is condition:
            return True
        if e not in seen and e.op != "where":
            stack += e.args
        seen.add(e)
    return False


def _nearest(x: float, dropped: int, to_even: bool) -> float:
    """Returns the nearest float32 whose last bits are 0; halfway as kernels round."""
    if not math.isfinite(x):
        return x
    (bits,) = struct.unpack("<I", struct.pack("<f", x))
    half = (1 << dropped - 1) - (to_even and not bits >> dropped & 1)
    return struct.unpack("<f", struct.pack("<I", bits + half >> dropped << dropped))[0]


_FOLD = {
    "tf32": lambda x: _nearest(x, dropped=13, to_even=False),
    "bf16": lambda x: _nearest(x, dropped=16, to_even=True),
    "exp": math.exp,
    "log": math.log,
    "sqrt": math.sqrt,
    "reciprocal": lambda x: 1.0 / x,
    "sigmoid": lambda x: 1.0 / (1.0 + math.exp(-x)),
    "tanh": math.tanh,
    "erf": math.erf,
    "softplus": lambda x: max(x, 0.0) + math.log1p(math.exp(-abs(x))),
    "sin": math.sin,
    "cos": math.cos,
}


def unary(op: str, x: Expr | float) -> Expr:
    """Returns a function of one argument, folded on constants."""
    x = _expr(x)
    if (number := _number(x)) is not None:
        return const(_FOLD[op](number))
    if op == "reciprocal" and x.op == "reciprocal":
        return x.args[0]
    return Expr(op, (x,))


def exp(x: Expr | float) -> Expr:
    """Returns e^x."""
    return unary("exp", x)


def log(x: Expr | float) -> Expr:
    """Returns the natural logarithm of x."""
    return unary("log", x)


def sqrt(x: Expr | float) -> Expr:
    """Returns the square root of x."""
    return unary("sqrt", x)


def reciprocal(x: Expr | float) -> Expr:
    """Returns 1/x."""
    return unary("reciprocal", x)


def sigmoid(x: Expr | float) -> Expr:
    """Returns 1/(1+e^-x)."""
    return unary("sigmoid", x)


def tanh(x: Expr | float) -> Expr:
    """Returns the hyperbolic tangent of x."""
    return unary("tanh", x)


def erf(x: Expr | float) -> Expr:
    """Returns the error function of x."""
    return unary("erf", x)


def softplus(x: Expr | float) -> Expr:
    """Returns log(1 + e^x), without overflow."""
    return unary("softplus", x)


def sin(x: Expr | float) -> Expr:
    """Returns the sine of x."""
    return unary("sin", x)


def cos(x: Expr | float) -> Expr:
    """Returns the cosine of x."""
    return unary("cos", x)


def power(x: Expr | float, exponent: float) -> Expr:
    """Returns x to the power of a number: by products where it is an integer, a root at ±1/2.

    Examples:
        >>> power(var(0), 3)
        x0*x0*x0
        >>> derivative(power(var(0), 1.5), 0)
        1.5*sqrt(x0)
    """
    x, exponent = _expr(x), float(exponent)
    if exponent < 0.0:
        return reciprocal(power(x, -exponent))
    if exponent.is_integer() and exponent <= LARGEST_PRODUCT:
        return mul(*[x] * int(exponent))
    if exponent == 0.5:
        return sqrt(x)
    if (number := _number(x)) is not None:
        return const(math.pow(number, exponent))
    return Expr("power", (x, const(exponent)))


# d op(x) / dx, given the node itself, so that the value computed forward is used again.
_DERIVATIVE = {
    "exp": lambda node, x: node,
    "log": lambda node, x: reciprocal(x),
    "sqrt": lambda node, x: 0.5 * reciprocal(node),
    "reciprocal": lambda node, x: -1.0 * node * node,
    "sigmoid": lambda node, x: node * (1.0 - node),
    "tanh": lambda node, x: 1.0 - node * node,
    "erf": lambda node, x: (2.0 / math.sqrt(math.pi)) * exp(-1.0 * x * x),
    "softplus": lambda node, x: sigmoid(x),
    "sin": lambda node, x: cos(x),
    "cos": lambda node, x: -1.0 * sin(x),
}


def derivative(expr: Expr, index: int) -> Expr:
    """Returns ∂expr/∂x_index, symbolically.

    At a kink the branch `otherwise` counts, and at NaN that of `at_nan`, as in PyTorch.

    Examples:
        >>> derivative(var(0) * tanh(var(1)), 0)
        tanh(x1)
    """
    slopes: dict[Expr, Expr] = {}
    for e in subexpressions([expr]):
        slopes[e] = _slope(e, index, slopes)
    return slopes[expr]


def _slope(expr: Expr, index: int, slopes: Mapping[Expr, Expr]) -> Expr:
    """Returns the derivative of an expression from those of its arguments."""
    if expr.op in ("var", "const", "batch"):
        return ONE if expr.op == "var" and expr.value == index else ZERO
    inner = [slopes[a] for a in expr.args]
    if expr.op == "add":
        return add(*inner)
    if expr.op == "mul":
        others = (expr.args[:i] + expr.args[i + 1 :] for i in range(len(inner)))
        return add(*(mul(slope, *rest) for slope, rest in zip(inner, others, strict=True)))
    if expr.op == "where":
        return branch(expr.args[0], inner[1], inner[2])
    if expr.op == "power":
        x, exponent = expr.args[0], _value(expr.args[1], (), 1)
        return mul(exponent, power(x, exponent - 1.0), inner[0])
    (x,) = expr.args
    return mul(_DERIVATIVE[expr.op](expr, x), inner[0])


def substitute(expr: Expr, operands: Mapping[int, Expr]) -> Expr:
    """Returns `expr` with operand i replaced by `operands[i]`, canonical again."""
    new: dict[Expr, Expr] = {}
    for e in subexpressions([expr]):
        if e.op == "var" and e.value is not None:
            new[e] = operands.get(int(e.value), e)
        else:
            new[e] = rebuild(e, [new[a] for a in e.args])
    return new[expr]


def with_batch(expr: Expr, number: Expr) -> Expr:
    """Returns `expr` with another expression for the batch size, canonical again."""
    new: dict[Expr, Expr] = {}
    for e in subexpressions([expr]):
        new[e] = number if e.op == "batch" else rebuild(e, [new[a] for a in e.args])
    return new[expr]


def rebuild(expr: Expr, args: Sequence[Expr]) -> Expr:
    """Returns the operation of `expr` on other arguments, canonical again."""
    if expr.op in _REBUILD:
        return _REBUILD[expr.op](*args)
    return unary(expr.op, args[0]) if args else expr


_REBUILD = {
    "add": add,
    "mul": mul,
    "where": _where,
    "power": lambda x, exponent: power(x, _value(exponent, (), 1)),
}


def subexpressions(roots: Sequence[Expr]) -> list[Expr]:
    """Returns every distinct subexpression once, operands before users: straight-line code."""
    order: dict[Expr, None] = {}
    stack = list(reversed(roots))
    while stack:
        expr = stack[-1]
        missing = [] if expr in order else [a for a in expr.args if a not in order]
        if missing:
            stack += reversed(missing)
        else:
            order[stack.pop()] = None
    return list(order)


def operands(expr: Expr) -> Sequence[int]:
    """Returns the indices of the operands that `expr` reads, ascending."""
    return expr.operands


def evaluate(expr: Expr, batch: int) -> float:
    """Returns the value of an expression without operands at a batch size."""
    values: dict[Expr, float] = {}
    for e in subexpressions([expr]):
        values[e] = _value(e, [values[a] for a in e.args], batch)
    return values[expr]


def _value(expr: Expr, args: Sequence[float], batch: int) -> float:
    if expr.op == "batch":
        return float(batch)
    if (number := _number(expr)) is not None:
        return number
    if expr.op == "add":
        return math.fsum(args)
    if expr.op == "mul":
        return math.prod(args)
    if expr.op == "power":
        return math.pow(*args)
    if expr.op == "where":
        condition, positive, otherwise, *_ = args
        if condition > 0 or condition <= 0:
            return positive if condition > 0 else otherwise
        return args[expr.args.index(at_nan(expr))]
    return _FOLD[expr.op](args[0])
