"""What a mask hides: tiles in which nothing is seen are left out.

    s_ij = … + where(a·x_i + b·y_j + c > 0, −10³⁰, 0)

x are numbers of rows, y numbers of columns, as the indices of queries and keys are. A tile in which
the condition holds everywhere adds nothing to a maximum, to a sum of exponentials, or to a sum of
what has a factor exp(s): it need not be computed. What that is, is followed through the graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from ..graph.ir import Node, Op
from ..graph.scalar import ZERO, Expr, subexpressions
from ..streaming.streams import Stream
from .running import ROUNDING

LOWEST = -1e29  # a score of less than this is of something that is not seen


class Where(Enum):
    """What a value is where nothing is seen."""

    ANY = "anything"
    LOW = "so low that its exponential is 0"
    ZERO = "0"


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


def vanishes(stream: Stream, mask: Mask, sinks: Sequence[Node], wide: frozenset[Node]) -> bool:
    """Whether what a mask hides adds nothing to sinks."""
    found: dict[Node, Where] = {}
    for node in stream.nodes:
        found[node] = _where(node, mask, found) if node in wide else Where.ANY
    for sink in sinks:
        needed = Where.LOW if sink.op in (Op.ROW_MAX, Op.LOG_SUM_EXP) else Where.ZERO
        if sink in wide or sink.op is Op.SAMPLE:
            return False
        if not any(found.get(x) is needed for x in sink.inputs):
            return False
    return True


def _where(node: Node, mask: Mask, known: Mapping[Node, Where]) -> Where:
    if node.op is Op.BROADCAST:
        return known.get(node.inputs[0], Where.ANY)
    if node.op is not Op.MAP:
        return Where.ANY
    conditions = {e.args[0] for e, other in _masks(node) if other == mask}
    operands = [known.get(x, Where.ANY) for x in node.inputs]
    found: dict[Expr, Where] = {}
    for e in subexpressions([node["expr"]]):
        found[e] = _of(e, operands, found, conditions)
    return found[node["expr"]]


def _of(
    e: Expr, operands: Sequence[Where], found: Mapping[Expr, Where], conditions: set[Expr]
) -> Where:
    if e.op == "var":
        return operands[int(e.value or 0)]
    if e.op == "const":
        low = (e.value or 0.0) < LOWEST
        return Where.ZERO if e is ZERO else Where.LOW if low else Where.ANY
    args = [found[a] for a in e.args]
    if e.op == "add":
        if Where.LOW in args:
            return Where.LOW
        return Where.ZERO if all(a is Where.ZERO for a in args) else Where.ANY
    if e.op == "mul":
        return _product(e, args)
    if e.op == "exp":
        return Where.ZERO if args[0] is Where.LOW else Where.ANY
    if e.op == "where":
        if e.args[0] in conditions:
            return args[1]
        return args[1] if args[1] is args[2] else Where.ANY
    return args[0] if e.op in ROUNDING else Where.ANY


def _product(e: Expr, args: Sequence[Where]) -> Where:
    if Where.ZERO in args:
        return Where.ZERO
    number, *rest = e.args
    scaled = number.op == "const" and 1e-3 < (number.value or 0.0) < 1e3 and len(rest) == 1
    return args[1] if scaled else Where.ANY
