"""One element of a value in terms of elements of its operands, for all ops but contractions.

The code generator runs a rule to write code; the scheduler runs the same rule to see what would be
read, and where. Broadcasts, transposes, slices, pools and gathers are no kernels of their own:
whoever reads such a value reads its operands at other indices. An index is a tuple of `Index`, one
per axis: integer expressions of the tile language, varying along rows or columns of a tile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..graph.ir import Dim, Node, Op, Shape
from ..graph.scalar import Expr, subexpressions

BATCH_SIZE = "batch"
LONGEST_ROW = 8192  # columns that one tile takes whole, for sums along a row


@dataclass(frozen=True)
class Index:
    """An expression, and the axes of a tile along which it varies ("rows", "columns")."""

    text: str
    spans: frozenset[str] = frozenset()

    def _with(self, other: Index | int, form: str) -> Index:
        other = other if isinstance(other, Index) else Index(str(other))
        return Index(form.format(self.text, other.text), self.spans | other.spans)

    def __add__(self, other: Index | int) -> Index:
        if other in (0, ZERO):
            return self
        return (
            other
            if self.text == "0" and isinstance(other, Index)
            else self._with(
                other, "({} + {})" if not (isinstance(other, int) and other < 0) else "({} {})"
            )
        )

    def __sub__(self, other: Index | int) -> Index:
        return self if other == 0 else self._with(other, "({} - {})")

    def __mul__(self, other: Index | int) -> Index:
        if self.text == "0" or other == 0:
            return ZERO
        return self if other == 1 else self._with(other, "{} * {}")

    def __floordiv__(self, other: Index | int) -> Index:
        return self if other == 1 else self._with(other, "({} // {})")

    def __mod__(self, other: Index | int) -> Index:
        return ZERO if other == 1 else self._with(other, "({} % {})")

    def __and__(self, other: Index | None) -> Index:
        return self if other is None else self._with(other, "({} & {})")

    def at_least(self, bound: int) -> Index:
        """Whether it is ≥ bound."""
        return self._with(bound, "({} >= {})")

    def below(self, bound: int) -> Index:
        """Whether it is < bound."""
        return self._with(bound, "({} < {})")

    def equals(self, other: Index) -> Index:
        """Whether both are the same number."""
        return self._with(other, "({} == {})")


ZERO = Index("0")
At = tuple[Index, ...]


class Reader(Protocol):
    """Whoever asks for elements: the code generator, or the scheduler that only looks."""

    def value(self, node: Node, at: At, valid: Index | None) -> Index:
        """The element of `node` at an index; anything where `valid` is false."""
        ...

    def name(self, value: Index) -> Index:
        """The same value, computed once."""
        ...

    def along_row(
        self, form: str, at: At, element: Callable[[At], Index], *operands: Index
    ) -> Index:
        """A row's elements put together: their "sum", their "max", a class to "draw"."""
        ...

    def total(self, dims: Shape, element: Callable[[At], Index]) -> Index:
        """Sum of the elements at all indices below `dims`, in a loop."""
        ...


def extent(dims: Sequence[Dim]) -> str:
    """The product of dimensions as an expression."""
    known = math.prod(d for d in dims if isinstance(d, int))
    if all(isinstance(d, int) for d in dims):
        return str(known)
    return BATCH_SIZE if known == 1 else f"{BATCH_SIZE} * {known}"


def linear(shape: Shape, at: At) -> Index:
    """The position of an element in row-major order."""
    total = ZERO
    for axis, index in enumerate(at):
        stride = extent(shape[axis + 1 :])
        step = int(stride) if stride.isdigit() else Index(f"({stride})")
        total = index * step + total if total.text == "0" else total + index * step
    return total


def split(shape: Shape, position: Index) -> At:
    """The index of the element at a position in row-major order."""
    at = []
    for axis, dim in enumerate(shape):
        stride = extent(shape[axis + 1 :])
        index = position // (int(stride) if stride.isdigit() else Index(f"({stride})"))
        if axis and any(d != 1 for d in shape[:axis]):
            index = index % (dim if isinstance(dim, int) else Index(BATCH_SIZE))
        at.append(ZERO if dim == 1 else index)
    return tuple(at)


# --- rules ----------------------------------------------------------------------------------------

Rule = Callable[[Reader, Node, At, "Index | None"], Index]


def _broadcast(read: Reader, node: Node, at: At, valid: Index | None) -> Index:
    kept = tuple(index for axis, index in enumerate(at) if axis not in node["axes"])
    return read.value(node.inputs[0], kept, valid)


def _reshape(read: Reader, node: Node, at: At, valid: Index | None) -> Index:
    (x,) = node.inputs
    old, new = ([d for d in n.shape if d != 1] for n in (x, node))
    if old == new:  # only axes of length one come or go
        moved = iter([i for i, d in zip(at, node.shape, strict=True) if d != 1])
        return read.value(x, tuple(ZERO if d == 1 else next(moved) for d in x.shape), valid)
    position = read.name(linear(node.shape, at))
    return read.value(x, split(x.shape, position), valid)


def _transpose(read: Reader, node: Node, at: At, valid: Index | None) -> Index:
    order = node["order"]
    return read.value(
        node.inputs[0], tuple(at[order.index(axis)] for axis in range(len(order))), valid
    )


def _moved(at: At, axis: int, by: int) -> At:
    return (*at[:axis], at[axis] + by, *at[axis + 1 :])


def _slice(read: Reader, node: Node, at: At, valid: Index | None) -> Index:
    return read.value(node.inputs[0], _moved(at, node["axis"], node["start"]), valid)


def _choose(condition: Index, value: Index, otherwise: Index | str) -> Index:
    other = otherwise if isinstance(otherwise, Index) else Index(otherwise)
    return Index(
        f"tl.where({condition.text}, {value.text}, {other.text})",
        condition.spans | value.spans | other.spans,
    )


def _inside(index: Index, start: int, stop: int) -> Index:
    return index.at_least(start) & index.below(stop)


def _pad(read: Reader, node: Node, at: At, valid: Index | None) -> Index:
    (x,), axis, low = node.inputs, node["axis"], node["low"]
    inside = _inside(at[axis], low, low + x.shape[axis])
    return _choose(inside, read.value(x, _moved(at, axis, -low), inside & valid), "0.0")


def _concat(read: Reader, node: Node, at: At, valid: Index | None) -> Index:
    axis, start, result = node["axis"], 0, Index("0.0")
    for x in node.inputs:
        inside = _inside(at[axis], start, start + x.shape[axis])
        result = _choose(inside, read.value(x, _moved(at, axis, -start), inside & valid), result)
        start += x.shape[axis]
    return result


def taps(node: Node, at: At, size: tuple[int, int]) -> Iterator[tuple[Index, Index, Index | None]]:
    """Places (h, w) that the window of an output element visits, and whether they are inside."""
    (kh, kw), (sh, sw), (ph, pw) = node["kernel"], node["stride"], node["padding"]
    dh, dw = node.attributes.get("dilation", (1, 1))
    for i in range(kh):
        for j in range(kw):
            h, w = at[-3] * sh + (i * dh - ph), at[-2] * sw + (j * dw - pw)
            yield h, w, _inside(h, 0, size[0]) & _inside(w, 0, size[1]) if ph or pw else None


def visitors(node: Node, at: At, size: tuple[int, int]) -> Iterator[tuple[Index, Index, Index]]:
    """Windows (oh, ow) of an output of `size` that may visit a place, and whether they exist."""
    ranges = []
    for index, k, s, p, d, n in zip(
        at[-3:-1], node["kernel"], node["stride"], node["padding"],
        node.attributes.get("dilation", (1, 1)), size, strict=True,
    ):  # fmt: skip
        reach = d * (k - 1)
        latest = (index + p) // s
        ranges.append(
            [
                (o, _inside(o, 0, n) & (index + p - o * s).below(reach + 1))
                for o in (latest - back for back in range(reach // s + 1))
            ]
        )
    for oh, in_rows in ranges[0]:
        for ow, in_columns in ranges[1]:
            yield oh, ow, in_rows & in_columns


def _sum(terms: Sequence[Index]) -> Index:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _avg_pool(read: Reader, node: Node, at: At, valid: Index | None) -> Index:
    (x,) = node.inputs
    terms, counts = [], []
    for h, w, inside in taps(node, at, x.shape[-3:-1]):
        there = (*at[:-3], h, w, at[-1])
        if inside is None:
            terms.append(read.value(x, there, valid))
        else:
            terms.append(_choose(inside, read.value(x, there, inside & valid), "0.0"))
            counts.append(Index(f"tl.where({inside.text}, 1.0, 0.0)", inside.spans))
    total = read.name(_sum(terms))
    if node["count_include_pad"] or not counts:
        return Index(f"({total.text} / {math.prod(node['kernel'])})", total.spans)
    count = _sum(counts)
    return Index(f"({total.text} / {count.text})", total.spans | count.spans)


def _avg_unpool(read: Reader, node: Node, at: At, valid: Index | None) -> Index:
    (ct,), size = node.inputs, node["size"]
    terms = []
    for oh, ow, exists in visitors(node, at, ct.shape[-3:-1]):
        there = (*at[:-3], oh, ow, at[-1])
        value = read.value(ct, there, exists & valid)
        if not node["count_include_pad"]:
            insides = [inside for *_, inside in taps(node, there, size) if inside is not None]
            if insides:
                count = _sum([Index(f"tl.where({i.text}, 1.0, 0.0)", i.spans) for i in insides])
                value = Index(
                    f"({value.text} / tl.maximum({count.text}, 1.0))", value.spans | count.spans
                )
            else:
                value = Index(f"({value.text} / {math.prod(node['kernel'])})", value.spans)
        terms.append(_choose(exists, value, "0.0"))
    total = read.name(_sum(terms))
    if node["count_include_pad"]:
        return Index(f"({total.text} / {math.prod(node['kernel'])})", total.spans)
    return total


def _gather_max(read: Reader, node: Node, at: At, valid: Index | None) -> Index:
    """The whole window is read, in wide loads, and one element of it chosen."""
    x, index = node.inputs
    size = x.shape[-3:-1]
    chosen = read.name(read.value(index, at[len(at) - len(index.shape) :], valid))
    result = Index("0.0")
    for h, w, inside in taps(node, at, size):
        value = read.value(x, (*at[:-3], h, w, at[-1]), inside & valid if inside else valid)
        here = chosen.equals(h * size[1] + w) & inside
        result = read.name(_choose(here, value, result))
    return result


def _scatter_max(read: Reader, node: Node, at: At, valid: Index | None) -> Index:
    ct, index = node.inputs
    place = read.name(at[-3] * node["size"][1] + at[-2])
    terms = []
    for oh, ow, exists in visitors(node, at, ct.shape[-3:-1]):
        there = (*at[:-3], oh, ow, at[-1])
        chosen = read.value(index, there[len(there) - len(index.shape) :], exists & valid)
        here = exists & chosen.equals(place)
        terms.append(_choose(here, read.value(ct, there, exists & valid), "0.0"))
    return _sum(terms)


def _one_hot(read: Reader, node: Node, at: At, valid: Index | None) -> Index:
    here = read.value(node.inputs[0], at[:-1], valid).equals(at[-1])
    return Index(f"tl.where({here.text}, 1.0, 0.0)", here.spans)


_PRINT = {
    "exp": "tl.exp({})",
    "log": "tl.log({})",
    "sqrt": "tl.sqrt({})",
    "reciprocal": "(1.0 / {})",
    "sigmoid": "tl.sigmoid({})",
    "tanh": "tanh({})",
    "erf": "tl.erf({})",
    "softplus": "softplus({})",
    "where": "tl.where({} > 0, {}, {})",
    "tf32": "round_tf32({})",
    "bf16": "round_bf16({})",
}


def expression(read: Reader, expr: Expr, operands: Sequence[Index]) -> Index:
    """A scalar expression of values, every subexpression computed once."""
    values: dict[Expr, Index] = {}
    for e in subexpressions([expr]):
        args = [values[a] for a in e.args]
        spans = frozenset().union(*(a.spans for a in args))
        if e.op == "var":
            values[e] = operands[int(e.value or 0)]
            continue
        if e.op in ("const", "batch"):
            values[e] = Index(repr(e.value) if e.op == "const" else f"({BATCH_SIZE} * 1.0)")
            continue
        if e.op == "add":
            text = "(" + " + ".join(a.text for a in args) + ")"
        elif e.op == "mul":
            text = " * ".join(a.text for a in args)
        else:
            text = _PRINT[e.op].format(*(a.text for a in args))
        values[e] = read.name(Index(text, spans))
    return values[expr]


def _map(read: Reader, node: Node, at: At, valid: Index | None) -> Index:
    return expression(read, node["expr"], [read.value(x, at, valid) for x in node.inputs])


def _argmax_pool(read: Reader, node: Node, at: At, valid: Index | None) -> Index:
    """Row by row, the first largest; NaN counts as largest."""
    (x,) = node.inputs
    height, width = x.shape[-3:-1]
    best, place = Index('float("-inf")'), Index("-1")
    for h, w, inside in taps(node, at, (height, width)):
        condition = inside if valid is None else valid if inside is None else inside & valid
        value = read.name(read.value(x, (*at[:-3], h, w, at[-1]), condition))
        larger = Index(
            f"(({value.text} > {best.text}) | ({value.text} != {value.text}) | ({place.text} < 0))",
            value.spans | best.spans,
        )
        larger = read.name(larger & inside)
        best = read.name(_choose(larger, value, best))
        place = read.name(_choose(larger, h * width + w, place))
    return place


def reduction(node: Node) -> str:
    """How a sum is taken: of "all", down to "columns", along each "row", or in a "loop"."""
    shape, axes = node.inputs[0].shape, node["axes"]
    kept = [a for a, d in enumerate(shape) if a not in axes and d != 1]
    if not kept:
        return "all"
    if kept == [len(shape) - 1]:
        return "columns"
    return "row" if axes == (len(shape) - 1,) and shape[-1] <= LONGEST_ROW else "loop"


def _reduce_sum(read: Reader, node: Node, at: At, valid: Index | None) -> Index:
    (x,), axes = node.inputs, node["axes"]
    if reduction(node) == "row":
        return read.along_row("sum", at, lambda there: read.value(x, there, valid))

    def element(inner: At) -> Index:
        outer, reduced = iter(at), iter(inner)
        there = tuple(next(reduced if a in axes else outer) for a in range(len(x.shape)))
        return read.value(x, there, valid)

    return read.total(tuple(x.shape[a] for a in axes), element)


def _row_max(read: Reader, node: Node, at: At, valid: Index | None) -> Index:
    return read.along_row("max", at, lambda there: read.value(node.inputs[0], there, valid))


def _sample(read: Reader, node: Node, at: At, valid: Index | None) -> Index:
    z, u = node.inputs
    lead = len(u.shape) + 1 - len(z.shape)  # axes of copies, which z does not have
    draw = read.value(u, at, valid)
    return read.along_row("draw", at, lambda there: read.value(z, there[lead:], valid), draw)


ELEMENTS: dict[Op, Rule] = {
    Op.MAP: _map,
    Op.REDUCE_SUM: _reduce_sum,
    Op.ARGMAX_POOL: _argmax_pool,
    Op.ROW_MAX: _row_max,
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
    Op.ONE_HOT: _one_hot,
}
