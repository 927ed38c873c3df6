"""One element of a value in terms of elements of its operands, for all ops but contractions.

`ELEMENTS` is a table op → rule, and a rule has two readers: `slots` runs it to write code, the
scheduler's `reading` runs it to see what would be read, and where. Broadcasts, transposes, slices,
pools and gathers are no kernels of their own: whoever reads such a value reads its operands at
other indices. Images are (*lead, H, W, C); an index has an entry per axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import Protocol, TypeVar

from ..graph import ops
from ..graph.ir import Node, Op, Shape, is_batched
from ..graph.scalar import Expr, at_nan, const, subexpressions, substitute
from .indexing import At, regrouped
from .tile import BATCH, Along, Form, Index, Mask, Term, Value, add, call, number, where

LONGEST_ROW = 8192  # columns that one tile takes whole, for sums along a row
NOTHING = number(0.0)
T = TypeVar("T", bound=Term)


class Homes(Protocol):
    """The space in which a reader computes."""

    def home(self, shape: Shape) -> At | None:
        """Returns where a value of this shape lives in it, or None."""
        ...


class Reader(Protocol):
    """Whoever asks for elements: the code generator, or the scheduler that only looks."""

    @property
    def space(self) -> Homes:
        """The space of the kernel."""
        ...

    def value(self, node: Node, at: At, valid: Mask | None) -> Value:
        """Returns the element of `node` at an index; anything where `valid` does not hold."""
        ...

    def name(self, term: T) -> T:
        """Returns the same term, computed once."""
        ...

    def along_row(
        self, what: Along, at: At, element: Callable[[At], Value], *operands: Value
    ) -> Value:
        """Returns what is made of a row's elements: their sum, their maximum, a class drawn."""
        ...

    def total(self, dims: Shape, element: Callable[[At], Value]) -> Value:
        """Returns the sum of the elements at all indices below `dims`, taken in a loop."""
        ...


Rule = Callable[[Reader, Node, At, Mask | None], Value]


def _broadcast(read: Reader, node: Node, at: At, valid: Mask | None) -> Value:
    kept = tuple(index for axis, index in enumerate(at) if axis not in node["axes"])
    return read.value(node.inputs[0], kept, valid)


def _reshape(read: Reader, node: Node, at: At, valid: Mask | None) -> Value:
    (x,) = node.inputs
    there = read.space.home(x.shape) if at == read.space.home(node.shape) else None
    if there is None:
        there = regrouped(node.shape, at, x.shape, read.name)
    assert there is not None, "a reshape has as many elements as its operand"
    return read.value(x, there, valid)


def _transpose(read: Reader, node: Node, at: At, valid: Mask | None) -> Value:
    order = node["order"]
    there = tuple(at[order.index(axis)] for axis in range(len(order)))
    return read.value(node.inputs[0], there, valid)


def _moved(at: At, axis: int, by: int) -> At:
    return (*at[:axis], at[axis] + by, *at[axis + 1 :])


def _slice(read: Reader, node: Node, at: At, valid: Mask | None) -> Value:
    return read.value(node.inputs[0], _moved(at, node["axis"], node["start"]), valid)


def _pad(read: Reader, node: Node, at: At, valid: Mask | None) -> Value:
    (x,), axis, low = node.inputs, node["axis"], node["low"]
    inside = at[axis].inside(low, low + x.shape[axis])
    return where(inside, read.value(x, _moved(at, axis, -low), inside & valid), NOTHING)


def _concat(read: Reader, node: Node, at: At, valid: Mask | None) -> Value:
    axis, start, result = node["axis"], 0, NOTHING
    for x in node.inputs:
        inside = at[axis].inside(start, start + x.shape[axis])
        result = where(inside, read.value(x, _moved(at, axis, -start), inside & valid), result)
        start += x.shape[axis]
    return result


def taps(node: Node, at: At, size: tuple[int, int]) -> Iterator[tuple[Index, Index, Mask | None]]:
    """Yields places (h, w) that an output's window visits, and whether they are in the image."""
    (kh, kw), (sh, sw), (ph, pw) = node["kernel"], node["stride"], node["padding"]
    dh, dw = node.attributes.get("dilation", (1, 1))
    for i in range(kh):
        for j in range(kw):
            h, w = at[-3] * sh + (i * dh - ph), at[-2] * sw + (j * dw - pw)
            yield h, w, h.inside(0, size[0]) & w.inside(0, size[1]) if ph or pw else None


def visitors(node: Node, at: At, size: tuple[int, int]) -> Iterator[tuple[Index, Index, Mask]]:
    """Yields windows (oh, ow) of an output of `size` that may visit a place, and if they do."""
    ranges = []
    for index, k, s, p, d, n in zip(
        at[-3:-1], node["kernel"], node["stride"], node["padding"],
        node.attributes.get("dilation", (1, 1)), size, strict=True,
    ):  # fmt: skip
        reach = d * (k - 1)
        latest = (index + p) // s
        ranges.append(
            [
                (o, o.inside(0, n) & (index + p - o * s).below(reach + 1))
                for o in (latest - back for back in range(reach // s + 1))
            ]
        )
    for oh, in_rows in ranges[0]:
        for ow, in_columns in ranges[1]:
            yield oh, ow, in_rows & in_columns


def _avg_pool(read: Reader, node: Node, at: At, valid: Mask | None) -> Value:
    (x,) = node.inputs
    terms, counts = [], []
    for h, w, inside in taps(node, at, x.shape[-3:-1]):
        there = (*at[:-3], h, w, at[-1])
        if inside is None:
            terms.append(read.value(x, there, valid))
        else:
            terms.append(where(inside, read.value(x, there, inside & valid), NOTHING))
            counts.append(inside.indicator())
    total = read.name(add(terms))
    if node["count_include_pad"] or not counts:
        return total / number(math.prod(node["kernel"]))
    return total / add(counts)


def _avg_unpool(read: Reader, node: Node, at: At, valid: Mask | None) -> Value:
    (ct,), size, every = node.inputs, node["size"], number(math.prod(node["kernel"]))
    terms = []
    for oh, ow, exists in visitors(node, at, ct.shape[-3:-1]):
        there = (*at[:-3], oh, ow, at[-1])
        value = read.value(ct, there, exists & valid)
        if not node["count_include_pad"]:
            counts = [i.indicator() for *_, i in taps(node, there, size) if i is not None]
            value = value / (call("tl.maximum", add(counts), number(1.0)) if counts else every)
        terms.append(where(exists, value, NOTHING))
    total = read.name(add(terms))
    return total / every if node["count_include_pad"] else total


def _gather_max(read: Reader, node: Node, at: At, valid: Mask | None) -> Value:
    """Reads the whole window, in wide loads, and chooses one element of it."""
    x, index = node.inputs
    size = x.shape[-3:-1]
    chosen = read.name(read.value(index, at[len(at) - len(index.shape) :], valid))
    result = NOTHING
    for h, w, inside in taps(node, at, size):
        value = read.value(x, (*at[:-3], h, w, at[-1]), inside & valid if inside else valid)
        here = chosen.equals(h * size[1] + w) & inside
        result = read.name(where(here, value, result))
    return result


def _scatter_max(read: Reader, node: Node, at: At, valid: Mask | None) -> Value:
    ct, index = node.inputs
    place = read.name(at[-3] * node["size"][1] + at[-2])
    terms = []
    for oh, ow, exists in visitors(node, at, ct.shape[-3:-1]):
        there = (*at[:-3], oh, ow, at[-1])
        chosen = read.value(index, there[len(there) - len(index.shape) :], exists & valid)
        here = exists & chosen.equals(place)
        terms.append(where(here, read.value(ct, there, exists & valid), NOTHING))
    return add(terms)


def _one_hot(read: Reader, node: Node, at: At, valid: Mask | None) -> Value:
    return read.value(node.inputs[0], at[:-1], valid).equals(at[-1]).indicator()


def _gather_rows(read: Reader, node: Node, at: At, valid: Mask | None) -> Value:
    """Reads a row of a table; one that the table does not have is NaN."""
    table, index = node.inputs
    lead, last = len(table.shape) - 2, len(at) - 1
    chosen = read.name(read.value(index, at[lead:last], valid).as_position())
    inside = chosen.inside(0, table.shape[-2])
    element = read.value(table, (*at[:lead], chosen, at[last]), inside & valid)
    return where(inside, element, number(math.nan))


def _function(name: str) -> Callable[..., Value]:
    return lambda *args: call(name, *args)


def _product(*factors: Value) -> Value:
    result = factors[0]
    for factor in factors[1:]:
        result = result * factor
    return result


def _branch(condition: Value, positive: Value, otherwise: Value, at_nan: Value) -> Value:
    """Returns one of three values, by one comparison where two of them are the same."""
    zero = number(0)
    if at_nan is positive is condition and otherwise is NOTHING:
        return call("positive_part", condition)
    if at_nan is positive:
        return where(condition.at_most(zero), otherwise, positive)
    rest = otherwise
    if at_nan is not otherwise:
        rest = where(condition.at_most(zero), otherwise, at_nan)
    return where(condition.above(zero), positive, rest)


SCALARS: dict[str, Callable[..., Value]] = {
    "batch": lambda: BATCH.as_value() * number(1.0),
    "add": lambda *terms: add(terms),
    "mul": _product,
    "exp": _function("tl.exp"),
    "log": _function("tl.log"),
    "sqrt": _function("tl.sqrt"),
    "reciprocal": lambda x: number(1.0) / x,
    "sigmoid": _function("tl.sigmoid"),
    "tanh": _function("tanh"),
    "erf": _function("tl.erf"),
    "softplus": _function("softplus"),
    "sin": _function("tl.sin"),
    "cos": _function("tl.cos"),
    "power": _function("power"),
    "where": _branch,
    "tf32": _function("round_tf32"),
    "bf16": _function("round_bf16"),
}


def expression(read: Reader, expr: Expr, operands: Sequence[Value]) -> Value:
    """Returns a scalar expression of elements, every subexpression computed once.

    Of numbers it is computed here: functions of Triton's take tensors.
    """
    numbers = {i: x.detail for i, x in enumerate(operands) if x.form is Form.CONSTANT}
    known = {i: const(x) for i, x in numbers.items() if isinstance(x, float)}
    expr, values = substitute(expr, known) if known else expr, dict[Expr, Value]()
    for e in subexpressions([expr]):
        if e.op == "var":
            values[e] = operands[int(e.value or 0)]
        elif e.op == "const":
            values[e] = number(float(e.value or 0.0))
        else:
            args = (*e.args[:3], at_nan(e)) if e.op == "where" else e.args
            value = SCALARS[e.op](*(values[a] for a in args))
            values[e] = value if e.op == "batch" else read.name(value)
    return values[expr]


def _map(read: Reader, node: Node, at: At, valid: Mask | None) -> Value:
    return expression(read, node["expr"], [_float(read, x, at, valid) for x in node.inputs])


def _float(read: Reader, x: Node, at: At, valid: Mask | None) -> Value:
    """Returns an element as a float, also where the tensor holds labels or places."""
    value = read.value(x, at, valid)
    return value * number(1.0) if x.type.kind == "int" else value


def _argmax_pool(read: Reader, node: Node, at: At, valid: Mask | None) -> Value:
    """Finds the first of the largest elements, row by row; NaN counts as largest."""
    (x,) = node.inputs
    height, width = x.shape[-3:-1]
    best, place = number(-math.inf), number(-1)
    for h, w, inside in taps(node, at, (height, width)):
        condition = inside & valid if inside else valid
        value = read.name(read.value(x, (*at[:-3], h, w, at[-1]), condition))
        larger = value.above(best) | value.differs(value) | place.below(number(0))
        larger = read.name(larger & inside)
        best = read.name(where(larger, value, best))
        place = read.name(where(larger, (h * width + w).as_value(), place))
    return place


class Reduction(str, Enum):
    """How a sum is taken."""

    ALL = "all"  # over all elements: tiles give partial sums
    COLUMNS = "columns"  # down to the last axis: tiles give partial sums of their columns
    ROW = "row"  # along each row, which a tile holds whole
    LOOP = "loop"  # in a loop over the axes that are summed


def reduction(node: Node) -> Reduction:
    """Returns how a sum is taken."""
    shape, axes = node.inputs[0].shape, node["axes"]
    kept = [a for a, d in enumerate(shape) if a not in axes and d != 1]
    if not kept:
        return Reduction.ALL
    if is_batched(shape[-1]):
        return Reduction.LOOP
    if kept == [len(shape) - 1]:
        return Reduction.COLUMNS
    whole = axes == (len(shape) - 1,) and shape[-1] <= LONGEST_ROW
    return Reduction.ROW if whole else Reduction.LOOP


def in_stages(node: Node) -> Node:
    """Returns what is made of rows by steps that tiles take, along whole rows, where it is none."""
    if node.op is Op.REDUCE_SUM and reduction(node) is Reduction.LOOP:
        return _rows_first(node)
    return _in_pieces(node) if node.op in (Op.ROW_MAX, Op.LOG_SUM_EXP) else node


def _rows_first(node: Node) -> Node:
    """Sums over as many of the last axes as a tile can hold, then over the others."""
    (x,), axes = node.inputs, node["axes"]
    first = len(x.shape) - 1
    if first not in axes or is_batched(x.shape[first]):
        return node
    while first - 1 in axes and _fits(x.shape[first - 1 :]):
        first -= 1
    row = math.prod(x.shape[first:])
    merged = ops.reshape(x, (*x.shape[:first], row)) if first < len(x.shape) - 1 else x
    total = _in_pieces(ops.reduce_sum(merged, (first,)))
    return in_stages(ops.reduce_sum(total, [a for a in axes if a < first]))


def _fits(dims: Shape) -> bool:
    """Whether a tile can hold a row of these axes."""
    return not any(map(is_batched, dims)) and math.prod(dims) <= LONGEST_ROW


def _in_pieces(node: Node) -> Node:
    """Cuts rows to pieces where they are too long for a tile, and puts together what these give."""
    (x,), last = node.inputs, len(node.shape)
    if is_batched(x.shape[last]) or _fits(x.shape[last:]):
        return node
    parts = []
    for start in range(0, x.shape[last], LONGEST_ROW):
        stop = min(start + LONGEST_ROW, x.shape[last])
        piece = ops.make(Op.SLICE, x, axis=last, start=start, stop=stop)
        parts.append(ops.reshape(ops.remake(node, (piece,)), (*node.shape, 1)))
    return _in_pieces(ops.remake(node, (ops.make(Op.CONCAT, *parts, axis=last),)))


def _reduce_sum(read: Reader, node: Node, at: At, valid: Mask | None) -> Value:
    (x,), axes = node.inputs, node["axes"]
    if reduction(node) is Reduction.ROW:
        return read.along_row(Along.SUM, at, lambda there: read.value(x, there, valid))

    def element(inner: At) -> Value:
        outer, reduced = iter(at), iter(inner)
        there = tuple(next(reduced if a in axes else outer) for a in range(len(x.shape)))
        return read.value(x, there, valid)

    return read.total(tuple(x.shape[a] for a in axes), element)


def _row_max(read: Reader, node: Node, at: At, valid: Mask | None) -> Value:
    return read.along_row(Along.MAX, at, lambda there: read.value(node.inputs[0], there, valid))


def _log_sum_exp(read: Reader, node: Node, at: At, valid: Mask | None) -> Value:
    """Takes the maximum out of the exponentials where it is finite."""

    def element(there: At) -> Value:
        return read.value(node.inputs[0], there, valid)

    most = read.name(read.along_row(Along.MAX, at, element))
    finite = most.above(number(-math.inf)) & most.below(number(math.inf))
    shift = read.name(where(finite, most, NOTHING))
    back = read.name(shift * number(-1.0))
    total = read.along_row(Along.SUM, at, lambda there: call("tl.exp", element(there) + back))
    return call("tl.log", total) + shift


def _sample(read: Reader, node: Node, at: At, valid: Mask | None) -> Value:
    z, u = node.inputs
    lead = len(u.shape) + 1 - len(z.shape)  # axes of copies, which z does not have
    uniform = read.value(u, at, valid)
    return read.along_row(Along.DRAW, at, lambda there: read.value(z, there[lead:], valid), uniform)


ELEMENTS: dict[Op, Rule] = {
    Op.MAP: _map,
    Op.REDUCE_SUM: _reduce_sum,
    Op.ARGMAX_POOL: _argmax_pool,
    Op.ROW_MAX: _row_max,
    Op.LOG_SUM_EXP: _log_sum_exp,
    Op.SAMPLE: _sample,
    Op.BROADCAST: _broadcast,
    Op.RESHAPE: _reshape,
    Op.TRANSPOSE: _transpose,
    Op.SLICE: _slice,
    Op.PAD: _pad,
    Op.CONCAT: _concat,
    Op.AVG_POOL: _avg_pool,
    Op.AVG_UNPOOL: _avg_unpool,
    Op.GATHER_MAX: _gather_max,
    Op.SCATTER_MAX: _scatter_max,
    Op.GATHER_ROWS: _gather_rows,
    Op.ONE_HOT: _one_hot,
}
