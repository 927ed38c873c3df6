"""The text of a pass: loops over tiles of what a program does not own, and what is summed in them.

What does not change from tile to tile is computed before a loop, and everything once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from ..graph import ops
from ..graph.ir import Dim, Node, Op, is_batched
from ..lowering.code import Buffer, Part
from ..lowering.elements import expression
from ..lowering.indexing import At, extent
from ..lowering.precision import is_rounded
from ..lowering.printing import triton
from ..lowering.slots import widened
from ..lowering.tile import (
    IN_COLUMNS,
    INSIDE,
    ROW,
    ROWS,
    TILE,
    Axis,
    Index,
    Mask,
    Pointer,
    Spans,
    T,
    Term,
    Value,
    number,
    where,
    within,
)
from ..streaming.hidden import Mask as Hiding
from .loops import Loop
from .placing import Place, Places, row_major
from .sinks import Contraction, Matrix, Sink, Unfit, contraction, matrices
from .space import Side, Space, Tile
from .tiles import FEWEST, Needs, padded

DEEPEST = 128  # the numbers of a row of an operand that a tile holds
NOTHING = number(0.0)


class Writer:
    """Writes a pass.

    Args:
        space: its space.
        tile: what a program holds at once.
        inside: what the stream computes.
        wide: the wide values among it.
        places: where values lie.
        precision: the precision of products.
    """

    def __init__(
        self,
        space: Space,
        tile: Tile,
        inside: frozenset[Node],
        wide: frozenset[Node],
        places: Places,
        precision: str,
    ) -> None:
        self.space, self.tile, self.wide = space, tile, wide
        self.inside, self.places, self.precision = inside, places, precision
        self.pointers: dict[Buffer, int] = {}
        self.before: list[str] = []  # what stands before the loop that is being written
        self.loop: list[str] = []  # what stands in it
        self.known: dict[tuple[Node, At], Value] = {}
        self.passing: dict[tuple[Node, At], Value] = {}  # what is known in this turn of this loop
        self.fleeting: set[Node] = set()  # the values that are
        self.named: dict[Term, Term] = {}
        self.named_passing: dict[Term, Term] = {}
        self.panels: dict[tuple[Node, int], str] = {}
        self.panels_passing: dict[tuple[Node, int], str] = {}
        self.depths: set[int] = set()
        self.drawing: dict[Node, list[str]] = {}  # what the first loop of a draw has given
        self.needs = Needs(0, 0, 0, 4, 0, 0)  # of the loop that holds most
        self.loops: Sequence[Loop] = ()
        self.now = Loop(())  # the loop that is being written
        self.scale = ""  # what sums so far are multiplied by when a running maximum grows
        self.seen = ""  # between which bounds a mask lets something be seen
        self.ratio = ""  # what sums of lanes are multiplied by behind the loop
        self.inverse = ""  # what they are multiplied by in the end
        self.count = 0

    # --- elements -------------------------------------------------------------------------------

    def value(self, node: Node, at: At) -> Value:
        """Returns the elements of a value at an index: a tile, or what a program owns of it."""
        found = self.known.get((node, at)) or self.passing.get((node, at))
        if found is None:
            found = self.name(self.element(node, at))
            # What is made of a softmax so far is no more behind the loop, not even a number.
            passes = Axis.COLUMNS in found.spans or not self.fleeting.isdisjoint(node.inputs)
            if passes:
                self.fleeting.add(node)
            (self.passing if passes else self.known)[node, at] = found
        return found

    def _is_there(self, node: Node, at: At) -> bool:
        """Whether a sum of rows is in memory, where it is read: an earlier pass has written it."""
        mine = any(sink.node is node for loop in self.loops for sink in loop.sinks)
        return not mine and at == self.row_of(node)

    def row_of(self, node: Node) -> At:
        """Returns the index at which rows have their numbers."""
        return self.space.at(len(node.shape) + 1)[:-1]

    def tile_of(self, node: Node) -> Value:
        """Returns a tile of a wide value."""
        return self.value(node, self.space.at(len(node.shape)))

    def element(self, node: Node, at: At) -> Value:
        """Returns a value in terms of its operands, or from memory."""
        if node in self.inside and node.op in ELEMENTS:
            return ELEMENTS[node.op](self, node, at)
        if node in self.wide:
            return self.product(node)
        if node in self.inside and not self._is_there(node, at):
            raise Unfit(f"{node!r} is read at another index than that where it is computed")
        return self.load(node, at)

    def name(self, term: T) -> T:
        """Returns the same term, computed once: before the loop, if it does not change there."""
        if term.atomic:
            return term
        passes = Axis.COLUMNS in term.spans
        named = self.named_passing if passes else self.named
        found = named.get(term)
        if found is None:
            found = type(term).named(self.variable(), term.spans)
            (self.loop if passes else self.before).append(f"{found.detail} = {triton(term)}")
            named[term] = found
        assert isinstance(found, type(term))
        return found

    def variable(self) -> str:
        """Returns a new identifier."""
        self.count += 1
        return f"v{self.count - 1}"

    # --- memory ---------------------------------------------------------------------------------

    def pointer(self, buffer: Buffer) -> Pointer:
        """Returns the pointer of a buffer."""
        return Pointer.named(f"p[{self.pointers.setdefault(buffer, len(self.pointers))}]")

    def load(self, node: Node, at: At) -> Value:
        """Returns a value from memory, 0 outside of the tile."""
        place = self.places(node)
        of = place.buffer
        assert isinstance(of, Node)
        if of.op is Op.CONST:
            return expression(self, of["value"], ())  # type: ignore[arg-type]
        address = place.address(at)
        there = self.pointer(of) + address
        return self.name(there.load(self.mask(address.spans), widened(of)))

    def store(self, place: Place, at: At, value: Value, first: Mask | None = None) -> None:
        """Writes what a program owns, or a tile of it."""
        address = place.address(at)
        value = value if value.spans >= address.spans else spread(value)
        mask = self.mask(address.spans, first)
        line = f"tl.store({triton(self.pointer(place.buffer) + address)}, {triton(value)}"
        line += ")" if mask is None else f", mask={triton(mask)})"
        (self.loop if Axis.COLUMNS in address.spans else self.before).append(line)

    def panel(self, node: Node, kept: int, own: bool) -> str:
        """Returns the tile of a matrix, one of its axes along the rows, all of the other one.

        Args:
            node: the matrix.
            kept: the axis that stands along the rows, -2 or -1.
            own: whether it is the axis that programs share, or the one they go through.
        """
        panels = self.panels if own else self.panels_passing
        if (node, kept) in panels:
            return panels[node, kept]
        depth = padded(width_of(node, kept))
        self.depths.add(depth)
        found = panels[node, kept] = self.variable()
        lines = self.before if own else self.loop
        lines.append(f"{found} = {self._read(node, kept, own, f'd{depth}', depth)}")
        return found

    def _read(self, node: Node, kept: int, own: bool, across: str, depth: int) -> str:
        """Returns what reads a tile of a matrix, at some of the numbers of its rows."""
        width, place = width_of(node, kept), self.places(node)
        at = (Index.named("r" if own else "t"), Index.named(across))
        at = at if kept == -2 else at[::-1]
        address = place.address((*self.space.lead_of(len(node.shape) - 2), *at))
        ends = self.ends if own else self.divides
        mask = None if ends else Mask.named("mr" if own else "mt")
        mask = Index.named(across).below(width) & mask if depth != width else mask
        given = "" if mask is None else f", mask={triton(mask)}, other=0.0"
        return f"tl.load({triton(self.pointer(place.buffer) + address)}{given})"

    # --- products -------------------------------------------------------------------------------

    def product(self, node: Node) -> Value:
        """Returns a tile of a wide product x y: its rows are those of x, its columns those of y."""
        x, y, *bias = node.inputs
        own, other = matrices(node, self.space.side)
        found = Value.named(self.variable(), TILE)
        if self.precision == "ieee":
            self._by_steps(found, own, other)
            return self._biased(found, bias)
        a, b = self.panel(*own, own=True), self.panel(*other, own=False)
        if self.is_narrow(x) != self.is_narrow(y):
            a, b = f"{a}.to(tl.float32)", f"{b}.to(tl.float32)"
        options = self.options(self.is_rounded(x) and self.is_rounded(y))
        self.loop.append(f"{found.detail} = tl.dot({a}, tl.trans({b}){options})")
        return self._biased(found, bias)

    def _by_steps(self, found: Value, own: Matrix, other: Matrix) -> None:
        """Writes a product without tensor cores, whose operands a thread cannot hold whole."""
        depth = padded(width_of(*own))
        a = self._read(*own, own=True, across="d", depth=depth)
        b = self._read(*other, own=False, across="d", depth=depth)
        name = found.detail
        self.loop += [
            f"{name} = tl.zeros(({self.tile.own}, {self.tile.other}), tl.float32)",
            f"for step in range(0, {depth}, {FEWEST}):",
            f"    d = step + tl.arange(0, {FEWEST})[None, :]",
            f'    {name} = tl.dot({a}, tl.trans({b}), {name}, input_precision="ieee")',
        ]

    def _biased(self, value: Value, bias: Sequence[Node]) -> Value:
        for x in bias:
            value = value + self.load(x, self.space.coordinates[-1:])
        return value

    def contract(self, node: Node) -> Callable[[], None]:
        """Adds the product of a wide tile and a matrix to an accumulator, turn by turn."""
        how = contraction(node, self.wide)
        depth = padded(how.width)
        total = self.variable()
        self.before.append(f"{total} = tl.zeros(({self.tile.own}, {depth}), tl.float32)")
        value = self.tile_of(how.wide)
        matrix = self.panel(how.matrix, how.summed, own=False)
        a = triton(self.inside_of_loop(value))
        rounded = is_rounded(how.wide) and self.is_rounded(how.matrix)
        if rounded and self.precision == "bf16":
            a = f"({a}).to(tl.bfloat16)"
        elif self.is_narrow(how.matrix):
            matrix = f"{matrix}.to(tl.float32)"
        start = f"{total}{self.scale}" if node in self.now.scaled else total
        self.loop.append(f"{total} = tl.dot({a}, {matrix}, {start}{self.options(rounded)})")
        return lambda: self._store_panel(node, how, total, depth)

    def _store_panel(self, node: Node, how: Contraction, total: str, depth: int) -> None:
        """Writes the sum that an accumulator holds."""
        place = self.places(node)
        at = (ROW, Index.named(f"d{depth}"))
        lead = len(node.shape) - 2
        at = (*self.space.lead_of(lead), *(at if how.kept == -2 else at[::-1]))
        mask = self.mask(ROWS, self.space.first_of_copies(lead))
        if depth != how.width:
            mask = Index.named(f"d{depth}").below(how.width) & mask
        given = "" if mask is None else f", mask={triton(mask)}"
        there = triton(self.pointer(place.buffer) + place.address(at))
        if node in self.now.scaled:
            total = f"{total} * {self.inverse}"
        self.before.append(f"tl.store({there}, {total}{given})")

    def options(self, rounded: bool) -> str:
        """Returns the options of a product."""
        precision = self.precision
        if precision == "bf16" and rounded:
            return ""
        if precision in ("tf32", "bf16") and not rounded:
            precision = "ieee"
        return f', input_precision="{precision}"'

    def stored_as(self, node: Node) -> Node:
        """Returns the value whose memory another one lies in."""
        buffer = self.places(node).buffer
        return buffer if isinstance(buffer, Node) else node

    def is_rounded(self, node: Node) -> bool:
        """Whether a matrix holds rounded numbers."""
        return is_rounded(node) or is_rounded(self.stored_as(node))

    def is_narrow(self, node: Node) -> bool:
        """Whether a matrix is stored in 16 bits."""
        of = self.stored_as(node)
        return is_rounded(of) and of["expr"].op == "bf16"

    # --- sums -----------------------------------------------------------------------------------

    def inside_of_loop(self, value: Value, otherwise: Value = NOTHING) -> Value:
        """Returns a tile of a value, with something else where the tensor has ended."""
        if value.spans == TILE and self.divides:
            return value
        return self.name(where(IN_COLUMNS if value.spans == TILE else INSIDE, value, otherwise))

    @property
    def divides(self) -> bool:
        """Whether the tiles of a loop end where the tensor does."""
        return _divides(self.space.other, self.tile.other)

    @property
    def ends(self) -> bool:
        """Whether what programs own ends where the tensor does."""
        return _divides(self.space.own, self.tile.own)

    def mask(self, spans: Spans, further: Mask | None = None) -> Mask | None:
        """Returns whether elements lie in the tensor; None where all of them do."""
        passed = {Axis.ROWS: self.ends, Axis.COLUMNS: self.divides}
        left = frozenset(axis for axis in spans if not passed[axis])
        return within(left, further) if left else further

    def along(self, start: str, line: str) -> str:
        """Adds a line to the loop that makes a number of a row of each tile."""
        total = self.variable()
        self.before.append(f"{total} = {self.kept(start)}")
        self.loop.append(line.replace("TOTAL", total))
        return total

    def kept(self, start: str) -> str:
        """Returns what is kept of rows at the beginning."""
        lanes = self.tile.other if self.tile.lanes else 1
        return f"tl.full(({self.tile.own}, {lanes}), {start}, tl.float32)"

    def made(self, text: str) -> str:
        """Returns the name of something that is made behind a loop."""
        found = self.variable()
        self.before.append(f"{found} = {text}")
        return found

    def sum_up(self, sink: Sink) -> Callable[[], None]:
        """Sums along the rows of tiles."""
        value = triton(self.inside_of_loop(self.tile_of(sink.node.inputs[0])))
        scaled = sink.node in self.now.scaled
        start = f"TOTAL{self.scale}" if scaled else "TOTAL"
        total = self.along("0.0", f"TOTAL = summed({start}, {value})")

        def finish() -> None:
            found = self.made(f"sum_of_row({total}{self.ratio if scaled else ''})")
            if scaled:
                found = self.made(f"{found} * {self.inverse}")
            self.finish(sink, Value.named(found, ROWS))

        return finish

    def running_maximum(self, sink: Sink) -> Callable[[], None]:
        """Takes the maximum so far, relative to which sums of this loop are taken."""
        node = sink.node
        value = triton(self.inside_of_loop(self.tile_of(node.inputs[0]), number(-math.inf)))
        most, new, shift, scale = (self.variable() for _ in range(4))
        self.before.append(f"""{most} = {self.kept('float("-inf")')}""")
        self.loop.append(f"{new} = larger({most}, {value})")
        self.loop.append(f"{shift} = finite({new})")
        self.loop.append(f"{scale} = tl.exp({most} - {shift})")
        self.loop.append(f"{most} = {new}")
        self.scale = f" * {scale}"
        self.passing[node, self.row_of(node)] = Value.named(shift, TILE)
        self.fleeting.add(node)

        def finish() -> None:
            found = self.made(f"largest_of_row({most})")
            if self.tile.lanes:  # each lane has summed relative to its own maximum
                self.ratio = " * " + self.made(f"tl.exp({most} - finite({found}))")
            self.finish(sink, Value.named(found, ROWS))

        return finish

    def running_normaliser(self, sink: Sink) -> Callable[[], None]:
        """Takes the sum of exponentials relative to the maximum so far, its logarithm at last."""
        node = sink.node
        assert self.now.softmax is not None
        most = self.now.softmax.maximum
        value = self.inside_of_loop(self.tile_of(node.inputs[0]), number(-math.inf))
        total = self.along("0.0", f"TOTAL = summed(TOTAL{self.scale}, tl.exp({triton(value)}))")
        self.passing[node, self.row_of(node)] = NOTHING
        self.fleeting.add(node)

        def finish() -> None:
            maximum = triton(self.known[most, self.row_of(most)])
            found = self.made(f"sum_of_row({total}{self.ratio})")
            self.inverse = self.made(f"1.0 / {found}")
            # Without finite elements there is no softmax: −∞ − (−∞) is NaN.
            found = self.made(f"tl.log({found}) + ({maximum} - {maximum})")
            self.finish(sink, Value.named(found, ROWS))

        return finish

    def maximum(self, sink: Sink) -> Callable[[], None]:
        """Takes the maximum of each row."""
        value = self.inside_of_loop(self.tile_of(sink.node.inputs[0]), number(-math.inf))
        total = self.along('float("-inf")', f"TOTAL = larger(TOTAL, {triton(value)})")
        return lambda: self.finish(sink, Value.named(self.made(f"largest_of_row({total})"), ROWS))

    def log_sum_exp(self, sink: Sink) -> Callable[[], None]:
        """Takes the logarithm of the sum of exponentials of each row."""
        (x,) = sink.node.inputs
        value = triton(self.inside_of_loop(self.tile_of(x), number(-math.inf)))
        most, total = self.variable(), self.variable()
        for name, start in ((most, 'float("-inf")'), (total, "0.0")):
            self.before.append(f"{name} = {self.kept(start)}")
        self.loop.append(f"{most}, {total} = add_exponentials({most}, {total}, {value})")

        def finish() -> None:
            shift = self.made(f"finite(largest_of_row({most}))")
            found = self.made(f"sum_of_row({total} * tl.exp({most} - {shift}))")
            found = self.made(f"tl.log({found}) + {shift}")
            self.finish(sink, Value.named(found, ROWS))

        return finish

    def sample(self, sink: Sink) -> Callable[[], None]:
        """Draws a class of each row: one loop for the sum of exponentials, one up to the class."""
        z, u = sink.node.inputs
        logits = triton(self.inside_of_loop(self.tile_of(z), number(-math.inf)))
        own = f"({self.tile.own}, 1)"
        if sink.node not in self.drawing:
            names = self.drawing[sink.node] = [self.variable() for _ in range(3)]
            most, total, last = names
            self.before.append(f'{most} = tl.full({own}, float("-inf"), tl.float64)')
            self.before.append(f"{total} = tl.full({own}, 0.0, tl.float64)")
            self.before.append(f"{last} = tl.full({own}, 0, tl.int32)")
            state = ", ".join(names)
            self.loop.append(f"{state} = draw_total({state}, {logits}, c)")
            return lambda: None
        uniform = triton(self.value(u, self.row_of(sink.node)))
        count, sums = self.variable(), self.variable()
        self.before.append(f"{count} = tl.full({own}, 0, tl.int32)")
        self.before.append(f"{sums} = tl.full({own}, 0.0, tl.float64)")
        state = ", ".join(self.drawing[sink.node])
        self.loop.append(
            f"{count}, {sums} = draw_class({count}, {sums}, {state}, {logits}, {uniform}, c)"
        )
        return lambda: self.finish(sink, Value.named(count, ROWS))

    def finish(self, sink: Sink, value: Value) -> None:
        """Notes what a row has given, and writes it."""
        node, shape = sink.node, sink.parts or sink.node.shape
        place = Place(Part(node), row_major(shape)) if sink.parts else self.places(node)
        axes = len(shape) - 1
        at = (*self.space.lead_of(axes), ROW)
        if not sink.parts:
            self.known[node, at] = value
        self.store(place, at, value, self.space.first_of_copies(axes))

    def keep(self, sink: Sink) -> Callable[[], None]:
        """Writes tiles of a wide value."""
        node = sink.node
        axes = len(node.shape)
        value, first = self.tile_of(node), self.space.first_of_copies(axes - 2)
        self.store(self.places(node), self.space.at(axes), value, first)
        return lambda: None

    # --- the whole ------------------------------------------------------------------------------

    def body(self, loops: Sequence[Loop]) -> Iterator[str]:
        """Yields the statements of a pass, of loops that each compute some sinks."""
        lines: list[str] = []
        self.loops = loops
        for self.now in loops:
            bounds = self.bounds(self.now.mask)
            finishing = [self.begin(sink) for sink in self.now.sinks]
            lines += [*self.before, *self._loop(bounds)]
            self._count()
            self.before, self.loop = [], []
            self.passing, self.named_passing, self.panels_passing = {}, {}, {}
            self.fleeting = set()
            for finish in finishing:
                finish()
        lines += self.before
        yield from self.space.definitions(self.tile)
        yield f"r = (pid * {self.tile.own} + tl.arange(0, {self.tile.own}))[:, None]"
        yield f"mr = r < {triton(extent([self.space.own]))}"
        for depth in sorted(self.depths):
            yield f"d{depth} = tl.arange(0, {depth})[None, :]"
        yield from lines

    def _count(self) -> None:
        """Notes what the loop that has been written holds."""
        products = sum("tl.dot(" in line for line in self.loop)
        sums = sum(s.node.op is Op.MATMUL and s.node not in self.wide for s in self.now.sinks)
        of = [*self.panels, *self.panels_passing]
        narrow = all(self.is_narrow(node) for node, _ in of)
        found = Needs(
            len(self.panels), len(self.panels_passing), max(self.depths, default=0),
            2 if narrow else 4, products - sums, sums, self.precision == "ieee",
        )  # fmt: skip
        if found.by_steps:
            found = replace(found, accumulators=sums + self.needs.accumulators)
        self.needs = max(self.needs, found, key=lambda needs: needs.registers(self.tile))

    def begin(self, sink: Sink) -> Callable[[], None]:
        """Writes what a turn of the loop does for a sink; returns what is done after the loop."""
        node = sink.node
        if node in self.wide:
            return self.keep(sink)
        if (softmax := self.now.softmax) is not None and node is softmax.maximum:
            return self.running_maximum(sink)
        if softmax is not None and node is softmax.normaliser:
            return self.running_normaliser(sink)
        if node.op is Op.MATMUL:
            return self.contract(node)
        return ops.rule_of(_SUMS, node, "pass")(self, sink)

    def bounds(self, mask: Hiding | None) -> str:
        """Writes between which tiles something is seen; returns these bounds."""
        size = triton(extent([self.space.other]))
        if mask is None:
            return f"0, {size}"
        if self.seen:
            return self.seen
        rows = self._vector(mask.rows, self.space.rows), mask.of_row
        columns = self._vector(mask.columns, self.space.columns), mask.of_column
        by_rows = self.space.side is Side.ROWS
        (_, of_own), (other, of_other) = (rows, columns) if by_rows else (columns, rows)
        own = self.value(mask.rows if by_rows else mask.columns, (ROW,))
        least, most, first, end = (self.variable() for _ in range(4))
        term = f"{of_own} * {triton(own)} + {mask.constant}"
        term = term if self.ends else f'tl.where(mr, {term}, float("inf"))'
        x, y = f"largest({rows[0]}, {rows[1]})", f"largest({columns[0]}, {-columns[1]})"
        # Tiles may be left out where every row sees something; otherwise it sees all alike.
        self.before += [
            f"{least} = tl.min({term})",
            f"{most} = {x} + {mask.constant} - {y}",
            f"{first}, {end} = seen({other}, {of_other}, {least})",
            f"{first} = tl.where({most} <= 0, {first} // {self.tile.other} * {self.tile.other}, 0)",
            f"{end} = tl.where({most} <= 0, {end}, {size})",
        ]
        self.seen = f"{first}, {end}"
        return self.seen

    def _vector(self, node: Node, size: Dim) -> str:
        """Returns a vector in memory as functions take it: a pointer, how many, how far apart."""
        place = self.places(node)
        there = self.pointer(place.buffer) + place.offset
        return f"{triton(there)}, {triton(extent([size]))}, {triton(place.strides[0])}"

    def _loop(self, bounds: str) -> Iterator[str]:
        other, size = self.tile.other, triton(extent([self.space.other]))
        yield f"for start in range({bounds}, {other}):"
        yield f"    c = (start + tl.arange(0, {other}))[None, :]"
        yield f"    t = (start + tl.arange(0, {other}))[:, None]"
        if not self.divides:
            yield f"    mc = c < {size}"
            yield f"    mt = t < {size}"
        yield from (f"    {line}" for line in self.loop)


def width_of(node: Node, kept: int) -> int:
    """Returns the numbers of a row of a matrix, one axis of which stands along rows.

    Raises:
        Unfit: a tile does not hold so many.
    """
    width = node.shape[-1 if kept == -2 else -2]
    if is_batched(width) or width > DEEPEST:
        raise Unfit(f"rows of {width} numbers, and tiles hold {DEEPEST}")
    return width


def _divides(size: Dim, tile: int) -> bool:
    """Whether tiles end where an axis does, at any batch size."""
    return (size.times if is_batched(size) else size) % tile == 0


def spread(value: Value) -> Value:
    """Returns the tile of a value that is the same along one of its axes."""
    return where(INSIDE, value, NOTHING)


def _map(write: Writer, node: Node, at: At) -> Value:
    values = [as_float(write, x, write.value(x, at)) for x in node.inputs]
    return expression(write, node["expr"], values)  # type: ignore[arg-type]


def as_float(write: Writer, x: Node, value: Value) -> Value:
    """Returns an element as a float, also where the tensor holds labels."""
    return write.name(value * number(1.0)) if x.type.kind == "int" else value


def _broadcast(write: Writer, node: Node, at: At) -> Value:
    kept = tuple(index for axis, index in enumerate(at) if axis not in node["axes"])
    return write.value(node.inputs[0], kept)


def _one_hot(write: Writer, node: Node, at: At) -> Value:
    return write.value(node.inputs[0], at[:-1]).equals(at[-1]).indicator()


ELEMENTS: Mapping[Op, Callable[[Writer, Node, At], Value]] = {
    Op.MAP: _map,
    Op.BROADCAST: _broadcast,
    Op.ONE_HOT: _one_hot,
}
_SUMS: dict[Op, Callable[[Writer, Sink], Callable[[], None]]] = {
    Op.REDUCE_SUM: Writer.sum_up,
    Op.ROW_MAX: Writer.maximum,
    Op.LOG_SUM_EXP: Writer.log_sum_exp,
    Op.SAMPLE: Writer.sample,
}
