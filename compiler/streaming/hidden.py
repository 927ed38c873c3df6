"""What a mask hides: parts of wide values in which nothing is seen are left out.

    s_ij = … + where(a·x_i + b·y_j + c > 0, −10³⁰, 0)

x are numbers of rows, y numbers of columns, as the indices of queries and keys are. Where the
condition holds a score is low, its exponential is 0 in any precision, and so is every product with
it: a block in which it holds everywhere adds nothing to a maximum, to a sum of exponentials, or to
a sum of what is 0 there. What that is, is read off the expressions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from ..graph.ir import Node, Op
from ..graph.scalar import Expr, subexpressions
from .streams import Stream

LOWEST = -1e29  # a score of less than this is of something that is not seen
ROUNDING = ("tf32", "bf16")  # what keeps 0 and low numbers what they are


class Where(Enum):
    """What a value is where nothing is seen."""

    ZERO = "0"
    LOW = "so low that its exponential is 0"
    MODERATE = "as large as what is seen"
    UNKNOWN = "anything"


@dataclass(frozen=True)
class Mask:
    """A mask that hides an element where a·x_i + b·y_j + c > 0.

    Attributes:
        rows: x.
        columns: y.
        of_row: a.
        of_column: b.
        constant: c.
    """

    rows: Node
    columns: Node
    of_row: float
    of_column: float
    constant: float


def mask_of(stream: Stream) -> Mask | None:
    """Returns the mask of a stream, if it has one."""
    return next((mask for node in stream.nodes for _, mask in _masks(node)), None)


def vanishes(stream: Stream, mask: Mask, sinks: Sequence[Node], wide: Collection[Node]) -> bool:
    """Whether what a mask hides adds nothing to sinks of a stream."""
    found: dict[Node, Where] = {}
    for node in stream.nodes:
        found[node] = _where(node, mask, found) if node in wide else Where.MODERATE
    for sink in sinks:
        needed = Where.LOW if sink.op in (Op.ROW_MAX, Op.LOG_SUM_EXP) else Where.ZERO
        if sink in wide or sink.op is Op.SAMPLE:
            return False
        if any(found[x] is not needed for x in sink.inputs if x in wide):
            return False
    return True


def _masks(node: Node) -> Iterator[tuple[Expr, Mask]]:
    """Yields the choices of a map that masks make."""
    if node.op is not Op.MAP:
        return
    for e in subexpressions([node["expr"]]):
        hides = e.op == "where" and e.args[1].op == "const" and (e.args[1].value or 0.0) < LOWEST
        if hides and (mask := _mask(e.args[0], node)) is not None:
            yield e, mask


def _mask(condition: Expr, node: Node) -> Mask | None:
    """Returns the mask whose condition this is."""
    factors: dict[int, float] = {}
    constant = 0.0
    for term in condition.args if condition.op == "add" else ():
        if term.op == "const":
            constant = float(term.value or 0.0)
            continue
        number, rest = term.args if term.op == "mul" and len(term.args) == 2 else (None, term)
        if rest.op != "var" or (number is not None and number.op != "const"):
            return None
        factors[int(rest.value or 0)] = 1.0 if number is None else float(number.value or 0.0)
    found: dict[int, tuple[Node, float]] = {}
    for i, factor in factors.items():
        if (vector := _vector(node.inputs[i])) is None:
            return None
        found[vector[1]] = vector[0], factor
    if len(factors) != 2 or len(found) != 2:
        return None
    (rows, of_row), (columns, of_column) = found[-2], found[-1]
    return Mask(rows, columns, of_row, of_column, constant)


def _vector(x: Node) -> tuple[Node, int] | None:
    """Returns a vector that is copied along all axes but one of the last two, and which this is."""
    if x.op is not Op.BROADCAST or len(x.inputs[0].shape) != 1:
        return None
    last = len(x.shape)
    (kept,) = (axis - last for axis in range(last) if axis not in x["axes"])
    return (x.inputs[0], kept) if kept in (-1, -2) else None


def _where(node: Node, mask: Mask, known: Mapping[Node, Where]) -> Where:
    """Returns what is known of a wide value where nothing is seen."""
    if node.op is Op.BROADCAST:
        return known.get(node.inputs[0], Where.MODERATE)
    if node.op is not Op.MAP:
        return Where.MODERATE
    conditions = {e.args[0] for e, other in _masks(node) if other == mask}
    operands = [known.get(x, Where.MODERATE) for x in node.inputs]
    found: dict[Expr, Where] = {}
    for e in subexpressions([node["expr"]]):
        found[e] = _of(e, operands, found, conditions)
    return found[node["expr"]]


def _of(
    e: Expr, operands: Sequence[Where], found: Mapping[Expr, Where], conditions: Collection[Expr]
) -> Where:
    """Returns what is known of a part of an expression."""
    if e.op == "var":
        return operands[int(e.value or 0)]
    if e.op == "const":
        number = float(e.value or 0.0)
        return Where.ZERO if number == 0 else Where.LOW if number < LOWEST else Where.MODERATE
    args = [found[a] for a in e.args]
    if e.op == "add":
        return _sum(args)
    if e.op == "mul":
        return _product(e, args)
    if e.op == "where":
        return _choice(e, args, conditions)
    if e.op == "exp" and args[0] is Where.LOW:
        return Where.ZERO
    if e.op in ROUNDING:
        return args[0]
    return Where.MODERATE if _are_moderate(args) else Where.UNKNOWN


def _are_moderate(args: Collection[Where]) -> bool:
    return {Where.ZERO, Where.MODERATE}.issuperset(args)


def _sum(args: Sequence[Where]) -> Where:
    if Where.UNKNOWN in args:
        return Where.UNKNOWN
    if Where.LOW in args:
        return Where.LOW
    return Where.ZERO if set(args) == {Where.ZERO} else Where.MODERATE


def _product(e: Expr, args: Sequence[Where]) -> Where:
    if Where.ZERO in args:
        return Where.ZERO
    if _are_moderate(args):
        return Where.MODERATE
    number, *rest = e.args
    scaled = number.op == "const" and 1e-3 < (number.value or 0.0) < 1e3 and len(rest) == 1
    return args[1] if scaled else Where.UNKNOWN


def _choice(e: Expr, args: Sequence[Where], conditions: Collection[Expr]) -> Where:
    """Returns what is known of a branch: a condition that is low or 0 does not hold."""
    condition, then, otherwise = args[:3]
    if e.args[0] in conditions:
        return then
    if condition in (Where.LOW, Where.ZERO):
        return otherwise
    if then is otherwise:
        return then
    return Where.MODERATE if _are_moderate((then, otherwise)) else Where.UNKNOWN
