"""Terms as Triton source: the one place that knows operators, precedence and function names."""

from __future__ import annotations

import math
from collections.abc import Callable

from .tile import INSIDE, Along, Form, Term

# Operators as (symbol, precedence); Python binds comparisons loosest, then |, &, sums, products.
OPERATORS = {
    Form.AT_LEAST: (">=", 0),
    Form.BELOW: ("<", 0),
    Form.ABOVE: (">", 0),
    Form.AT_MOST: ("<=", 0),
    Form.EQUAL: ("==", 0),
    Form.DIFFERENT: ("!=", 0),
    Form.OR: ("|", 1),
    Form.AND: ("&", 2),
    Form.ADD: ("+", 3),
    Form.SUBTRACT: ("-", 3),
    Form.MULTIPLY: ("*", 4),
    Form.DIVIDE: ("/", 4),
    Form.FLOOR_DIVIDE: ("//", 4),
    Form.MODULO: ("%", 4),
}
_ATOM = 5

# Rows of a tile put together; what lies outside the tensor counts as 0, or as −∞.
ALONG_ROW = {
    Along.SUM: "tl.sum(tl.where({inside}, {0}, 0.0), axis=1, keep_dims=True)",
    Along.MAX: 'row_max(tl.where({inside}, {0}, float("-inf")))',
    Along.DRAW: 'draw(tl.where({inside}, {0}, float("-inf")), {1}, c)',
}


def triton(term: Term) -> str:
    """Returns a term as Triton source, with as few parentheses as Python needs."""
    return _PRINT[term.form](term)


def _constant(term: Term) -> str:
    number = term.detail
    if isinstance(number, float) and not math.isfinite(number):
        return f'float("{number}")'
    return repr(number)


def _unknown(term: Term) -> str:
    raise AssertionError("an element that nobody has read cannot be printed")


def _precedence(term: Term) -> int:
    if term.form is Form.POSITION:
        return _precedence(term.args[0])
    return OPERATORS[term.form][1] if term.form in OPERATORS else _ATOM


def _operator(term: Term) -> str:
    """Prints an operator; operands go from left to right, so equal ones on the right are wrapped.

    Comparisons would chain, and are wrapped on both sides.
    """
    symbol, own = OPERATORS[term.form]
    parts = []
    for i, operand in enumerate(term.args):
        inner = _precedence(operand)
        wrapped = inner < own or (inner == own and (i > 0 or own == 0))
        parts.append(f"({triton(operand)})" if wrapped else triton(operand))
    return f" {symbol} ".join(parts)


def _call(term: Term) -> str:
    return f"{term.detail}({', '.join(map(triton, term.args))})"


def _along_row(term: Term) -> str:
    assert isinstance(term.detail, Along)
    return ALONG_ROW[term.detail].format(*map(triton, term.args), inside=triton(INSIDE))


def _load(term: Term) -> str:
    pointer, *mask = map(triton, term.args)
    masked = f", mask={mask[0]}, other=0" if mask else ""
    converted = f".to(tl.{term.detail})" if term.detail else ""
    return f"tl.load({pointer}{masked}){converted}"


_PRINT: dict[Form, Callable[[Term], str]] = {
    **dict.fromkeys(OPERATORS, _operator),
    Form.CONSTANT: _constant,
    Form.NAME: lambda term: str(term.detail),
    Form.UNKNOWN: _unknown,
    Form.WHERE: lambda term: f"tl.where({', '.join(map(triton, term.args))})",
    Form.POSITION: lambda term: triton(term.args[0]),
    Form.CALL: _call,
    Form.ALONG_ROW: _along_row,
    Form.DOWN_COLUMNS: lambda term: f"tl.sum({triton(term.args[0])}, axis=0, keep_dims=True)",
    Form.LOAD: _load,
}
