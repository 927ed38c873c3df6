"""Slots: the generated functions that compute a kernel's nodes on a tile in registers.

A slot is called `SLOT(acc, i, j, k, m, n, mr, mc, p, batch)` by a skeleton: an accumulator, tile
row, column strip, split, row and column indices with their masks, pointers, batch size. Identifiers
are r, c, e (row, column, element), a0… (coordinates), v0… (values): never a user's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from ..graph import ops, scalar
from ..graph.ir import Node, Op, Shape
from .code import Access, Buffer, Code, Functions, Part, Tile
from .elements import ELEMENTS, NOTHING, Reduction, expression, reduction
from .indexing import At, extent, linear, split
from .kernel import Kernel, Schedule, is_wide
from .operands import coefficients
from .precision import is_rounded
from .printing import triton
from .space import is_partial
from .tile import (
    BATCH,
    COLUMN,
    COLUMNS,
    ELEMENT,
    IN_COLUMNS,
    IN_ROWS,
    INSIDE,
    ROW,
    ROWS,
    TILE,
    ZERO,
    Along,
    Axis,
    Form,
    Index,
    Mask,
    Pointer,
    T,
    Term,
    Value,
    call,
    position,
    where,
    within,
)

PARAMETERS = "acc, i, j, k, m, n, mr, mc, p, batch"
ACCUMULATOR = Value.named("acc", TILE)
TILE_ROW, STRIP, SPLIT = (Index.named(name) for name in "ijk")
EMPTY = where(INSIDE, NOTHING, NOTHING)  # a tile of zeros


class _Writer:
    """The reader that writes the statements of one slot."""

    def __init__(
        self, kernel: Kernel, schedule: Schedule, tiles: Mapping[Kernel, Tile], code: Code
    ) -> None:
        self.kernel, self.schedule, self.tiles, self.code = kernel, schedule, tiles, code
        self.space = kernel.space
        self.coordinates: set[int] = set()
        self.lines: list[str] = []
        self.depth = 0
        self.known: dict[tuple[Node, At, Mask | None], Value] = {}
        self.named: dict[Term, Term] = {}
        self.count = 0

    # --- Reader ---------------------------------------------------------------------------------

    def value(self, node: Node, at: At, valid: Mask | None) -> Value:
        key = (node, at, valid)
        found = self.known.get((node, at, None)) or self.known.get(key)
        if found is None:
            if node.op is Op.CONST:
                found = expression(self, node["value"], ())
            elif node in self.schedule.looked_up:
                found = self.name(self.element(node, at, valid))
            else:
                found = self.load(node, at, valid)
            self.known[key] = found
        return found

    def name(self, term: T) -> T:
        if term.atomic:
            return term
        found = self.named.get(term)
        if found is None:
            found = type(term).named(self.variable(), term.spans)
            self.emit(f"{found.detail} = {self.text(term)}")
            self.named[term] = found
        assert isinstance(found, type(term))
        return found

    def along_row(
        self, what: Along, at: At, element: Callable[[At], Value], *operands: Value
    ) -> Value:
        value = element((*at, self.space.coordinates[-1]))
        return self.name(Value(Form.ALONG_ROW, (value, *operands), what, spans=ROWS))

    def total(self, dims: Shape, element: Callable[[At], Value]) -> Value:
        return self.summed(extent(dims), lambda index: element(split(dims, index)))

    # --- statements -----------------------------------------------------------------------------

    def element(self, node: Node, at: At, valid: Mask | None) -> Value:
        """Returns an element by the rule of its op."""
        return ops.rule_of(ELEMENTS, node, "element")(self, node, at, valid)

    def variable(self) -> str:
        """Returns a new identifier."""
        self.count += 1
        return f"v{self.count - 1}"

    def text(self, term: Term) -> str:
        """Returns a term as source; the coordinates in it are defined at the head of the slot."""
        self.coordinates |= term.coordinates
        return triton(term)

    def emit(self, line: str) -> None:
        """Writes a statement."""
        self.lines.append("    " * self.depth + line)

    def summed(self, count: Index, term: Callable[[Index], Value]) -> Value:
        """Returns the sum of a tile's terms over an index from 0 to `count`, in a loop."""
        total = Value.named(self.variable(), TILE)
        self.emit(f"{total.detail} = {triton(EMPTY)}")
        with self.loop(count) as index:
            value = term(index)
            self.emit(f"{total.detail} += {self.text(value)}")
        return total

    @contextmanager
    def loop(self, count: Index) -> Iterator[Index]:
        """Writes a loop around what follows; what is named in it is not known behind it."""
        known, named = dict(self.known), dict(self.named)
        index = Index.named(f"l{self.depth}")
        self.emit(f"for {index.detail} in range({self.text(count)}):")
        self.depth += 1
        yield index
        self.depth -= 1
        self.known, self.named = known, named

    # --- memory ---------------------------------------------------------------------------------

    def pointer(self, buffer: Buffer) -> Pointer:
        """Returns the pointer of a buffer."""
        pointers = self.code.pointers
        return Pointer.named(f"p[{pointers.setdefault(buffer, len(pointers))}]")

    def address(self, shape: Shape, at: At) -> Index:
        """Returns where an element lies."""
        if at and at == self.space.home(shape):
            return ROW if self.space.along_rows(shape) else ELEMENT
        return linear(shape, at)

    def load(self, node: Node, at: At, valid: Mask | None) -> Value:
        """Returns a value from memory; 0 outside the tile and where it is not valid."""
        address = self.address(node.shape, at)
        across = any(Axis.COLUMNS in index.spans for index in at)
        in_order = not across or at[-1:] == self.space.coordinates[-1:]
        home = at == self.space.home(node.shape)
        self.code.accesses.append(Access(node, False, home, in_order))
        if valid is not None and not valid.spans <= address.spans:  # as many addresses as masks
            address = where(valid, address, ZERO)
        there, mask = self.pointer(node) + address, within(address.spans, valid)
        return self.name(there.load(mask, widened(node)))

    def write(self, there: Pointer, value: Value, mask: Mask | None = None) -> None:
        """Writes elements to memory where the mask holds."""
        masked = "" if mask is None else f", mask={self.text(mask)}"
        self.emit(f"tl.store({self.text(there)}, {self.text(value)}{masked})")

    def store(self, node: Node, value: Value) -> None:
        """Writes a value that lives in the kernel's space."""
        self.code.accesses.append(Access(node, True))
        address = self.address(node.shape, self.space.home(node.shape) or ())
        self.write(self.pointer(node) + address, value, within(address.spans))

    # --- a kernel's nodes -----------------------------------------------------------------------

    def define(self, node: Node, value: Value) -> None:
        """Notes that a node's value is in registers, and writes it if somebody reads it."""
        value = self.name(value)
        self.known[node, self.space.home(node.shape) or (), None] = value
        if node in self.kernel.writes:
            self.store(node, value)

    def compute(self, node: Node) -> None:
        """Computes a node of the body."""
        if is_partial(node):
            self.define(node, self.added(node))
        elif node.op in ELEMENTS:
            self.define(node, self.element(node, self.space.home(node.shape) or (), None))
        else:
            self.anchor(node, self.accumulated(node))

    def anchor(self, node: Node, value: Value) -> None:
        """Computes the value of a contraction from its accumulator: bias and scale."""
        if "scale" in node.attributes:
            value = value * expression(self, node["scale"], ())
        self.define(node, self.biased(node, value))

    def biased(self, node: Node, value: Value) -> Value:
        """Returns a value plus the contraction's bias."""
        for bias in node.inputs[2:]:
            value = value + self.value(bias, (self.space.coordinates[-1],), None)
        return value

    def accumulated(self, node: Node) -> Value:
        """Returns Σ over the parts of a split accumulator."""
        head = self.schedule.accumulated_by[node]
        size = extent(self.space.shape)
        return self.summed(
            position(head.way.splits),
            lambda part: (self.pointer(Part(node)) + part * size + ELEMENT).load(INSIDE),
        )

    def joint(self, node: Node, head: Kernel, accumulator: Value) -> None:
        """Computes the map in which anchors meet, of the accumulator that has taken all of them."""
        home = self.space.home(node.shape) or ()
        for anchor in head.joined[:-1]:
            self.known[anchor, home, None] = self.name(self.biased(anchor, NOTHING))
        self.known[head.anchors[-1], home, None] = self.name(
            self.biased(head.anchors[-1], accumulator)
        )
        self.define(node, self.element(node, home, None))

    def added(self, node: Node) -> Value:
        """Returns Σ over the parts that tiles have written."""
        producer = self.schedule.part_of[node]
        tile = self.tiles[producer]
        parts = tile.down(extent(producer.space.rows))
        pointer = self.pointer(Part(node))
        if reduction(node) is Reduction.ALL:
            strips = 1 if producer.space.along_rows(node.inputs[0].shape) else tile.strips
            return call("add_all", pointer, parts * strips)
        columns = position(producer.space.columns)
        return call("add_rows", pointer, parts, columns, COLUMN, IN_COLUMNS, spans=COLUMNS)

    def part(self, node: Node) -> None:
        """Writes a tile's part of a sum."""
        (x,) = node.inputs
        value = self.value(x, self.space.home(x.shape) or (), None)
        strips = self.tiles[self.kernel].strips
        if reduction(node) is Reduction.COLUMNS:
            inside = where(INSIDE, value, NOTHING)
            total = self.name(Value(Form.DOWN_COLUMNS, (inside,), spans=COLUMNS))
            there = self.pointer(Part(node)) + TILE_ROW * self.space.columns + COLUMN
            self.write(there, total, IN_COLUMNS)
        elif self.space.along_rows(x.shape):
            total = call("tl.sum", where(IN_ROWS, value, NOTHING))
            self.write(self.pointer(Part(node)) + TILE_ROW, total)
        else:
            total = call("tl.sum", where(INSIDE, value, NOTHING))
            self.write(self.pointer(Part(node)) + TILE_ROW * strips + STRIP, total)

    def body(self) -> list[str]:
        """Returns the finished function's statements."""
        element = triton(ROW * self.space.columns + COLUMN)
        header = ["r = m[:, None]", "c = n[None, :]", f"e = {element}"]
        header += [f"a{i} = {triton(self.space.definition(i))}" for i in sorted(self.coordinates)]
        return [f"# {self.kernel}", *header, *self.lines]


def widened(node: Node) -> str | None:
    """Returns the type in registers: labels may be stored in 64 bits, rounded operands in 16."""
    if node.type.kind == "int":
        return "int32" if is_wide(node) else None
    return "float32" if is_rounded(node) else None


def kernel_code(
    kernel: Kernel, schedule: Schedule, tiles: Mapping[Kernel, Tile], functions: Functions
) -> Code:
    """Returns the slots of a kernel, added to the functions of its module."""
    code = Code()
    if kernel.opaque:
        return code
    last = max(0, len(kernel.anchors) - 1)
    for stage in range(last + 1):
        writer = _Writer(kernel, schedule, tiles, code)
        if kernel.way.splits > 1:
            _store_part(writer, kernel, stage)
        else:
            _stage(writer, kernel, stage)
        slot = functions.add("slot", PARAMETERS, writer.body()) if writer.lines else None
        code.stages.append(slot)
        writer = _Writer(kernel, schedule, tiles, code)
        ratio = _ratio(writer, stage) if stage < last else None
        named = functions.add("ratio", f"p, {BATCH.detail}", ratio) if ratio else None
        code.ratios.append(named)
    return code


def _store_part(writer: _Writer, kernel: Kernel, stage: int) -> None:
    """Writes a split accumulator as it is."""
    if kernel.joint is not None and stage < len(kernel.anchors) - 1:
        return
    start = writer.pointer(Part(kernel.anchors[stage])) + SPLIT * extent(kernel.space.shape)
    writer.write(start + ELEMENT, ACCUMULATOR, INSIDE)


def _stage(writer: _Writer, kernel: Kernel, stage: int) -> None:
    """Computes all nodes that can be computed after an anchor, and only then."""
    last, stages = max(0, len(kernel.anchors) - 1), writer.schedule.stages.get(kernel, {})
    body = [n for n in kernel.body if last == 0 or stages[n] == stage]
    partials = [n for n in kernel.partials if last == 0 or stages[n] == stage]
    joined = kernel.joint is not None and stage == last
    if kernel.anchors and not joined and (body or partials or kernel.anchors[0] in kernel.writes):
        writer.anchor(kernel.anchors[stage], ACCUMULATOR)
    for node in body:
        if node is kernel.joint:
            writer.joint(node, kernel, ACCUMULATOR)
        elif kernel.adds and node is kernel.adds[0].joint:
            writer.joint(node, kernel.adds[0], writer.accumulated(kernel.adds[0].anchors[-1]))
        else:
            writer.compute(node)
    for node in partials:
        writer.part(node)


def _ratio(writer: _Writer, stage: int) -> list[str] | None:
    """Returns the factor that takes an accumulator to the scale of the next anchor; None for 1."""
    kernel = writer.kernel
    first = len(kernel.anchors) - len(kernel.joined)
    if kernel.joint is None or stage < first:
        return ["return 0.0"]
    factors = coefficients(kernel.joint, kernel.joined)
    assert factors is not None
    ratio = factors[stage - first] * scalar.reciprocal(factors[stage - first + 1])
    if ratio is scalar.ONE:
        return None
    operands = [
        writer.value(x.inputs[0], (), None) if i in scalar.operands(ratio) else NOTHING
        for i, x in enumerate(kernel.joint.inputs)
    ]
    result = expression(writer, ratio, operands)
    return [*writer.lines, f"return {writer.text(result)}"]
