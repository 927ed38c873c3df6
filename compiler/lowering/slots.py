"""Slots: the generated functions that compute a kernel's nodes on a tile in registers.

A slot is called `SLOT(acc, i, j, k, m, n, mr, mc, p, batch)` by a skeleton: an accumulator, tile
row, column strip, split, row and column indices with their masks, pointers, batch size. Identifiers
are r, c, e (row, column, element), a0… (coordinates), v0… (values): never a user's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from ..graph import scalar
from ..graph.ir import Node, Op, Shape
from .elements import BATCH_SIZE, ELEMENTS, At, Index, expression, extent, linear, reduction, split
from .kernel import Kernel, Schedule, is_partial
from .operands import coefficients
from .precision import is_rounded

PARAMETERS = "acc, i, j, k, m, n, mr, mc, p, batch"
ROWS, COLUMNS = frozenset({"rows"}), frozenset({"columns"})
TILE = ROWS | COLUMNS
_MASK = {"rows": "mr", "columns": "mc"}
_ALONG_ROW = {
    "sum": "tl.sum(tl.where(mr & mc, {}, 0.0), axis=1, keep_dims=True)",
    "max": 'tl.max(tl.where(mr & mc, {}, float("-inf")), axis=1, keep_dims=True)',
    "draw": 'draw(tl.where(mr & mc, {}, float("-inf")), {}, c)',
}


@dataclass(frozen=True)
class Tile:
    """Rows and columns of what a slot sees at once, and how many strips of columns there are."""

    rows: int
    columns: int
    strips: int


@dataclass(frozen=True)
class Part:
    """Memory between two kernels: sums of tiles (`of` a sum), or parts of a split accumulator."""

    of: Node


Buffer = Node | Part


class Access(NamedTuple):
    """A load or store of a value. home: each element where it is computed. in_order: neighbours in
    a row of the tile are neighbours in memory.
    """  # noqa: D205

    node: Node
    stored: bool
    home: bool = True
    in_order: bool = True


@dataclass
class Code:
    """The slots of a kernel: one per stage, factors between them, and the pointers they share.

    accesses: to values, in the order in which they happen.
    """

    stages: list[str | None] = field(default_factory=list)
    ratios: list[str | None] = field(default_factory=list)
    pointers: list[Buffer] = field(default_factory=list)
    accesses: list[Access] = field(default_factory=list)

    @property
    def in_order(self) -> bool:
        """Whether all accesses are."""
        return all(a.in_order for a in self.accesses)

    def may_replace(self, x: Node, y: Node) -> bool:
        """Whether y can be written over x: each element is read before it is written, by itself."""
        found = [a for a in self.accesses if a.node in (x, y)]
        return sum(slot is not None for slot in self.stages) == 1 and all(
            a.home and a.stored is (i == len(found) - 1) for i, a in enumerate(found)
        )


class Functions:
    """The functions of a module, each once: layers of one shape share their code."""

    def __init__(self) -> None:
        self.names: dict[tuple[str, str, str], str] = {}

    def add(
        self, kind: str, parameters: str, body: Sequence[str], decorator: str = "@triton.jit"
    ) -> str:
        """The name of a function with this body."""
        text = "\n".join([f"({parameters}):", *(f"    {line}" for line in body)])
        return self.names.setdefault((kind, decorator, text), f"{kind}_{len(self.names)}")

    @property
    def source(self) -> str:
        """All of them."""
        found = self.names.items()
        return "\n\n\n".join(f"{jit}\ndef {name}{text}" for (_, jit, text), name in found)


class _Writer:
    """Writes the statements of one slot."""

    def __init__(
        self, kernel: Kernel, plan: Schedule, tiles: Mapping[Kernel, Tile], code: Code
    ) -> None:
        self.kernel, self.plan, self.tiles, self.code = kernel, plan, tiles, code
        self.space = kernel.space
        self.header: dict[str, None] = {}
        self.lines: list[str] = []
        self.depth = 0
        self.known: dict[tuple, Index] = {}
        self.named: dict[str, Index] = {}
        self.count = 0

    # --- Reader ---------------------------------------------------------------------------------

    def value(self, node: Node, at: At, valid: Index | None) -> Index:
        key = (node, at, valid)
        found = self.known.get((node, at, None)) or self.known.get(key)
        if found is None:
            if node.op is Op.CONST:
                found = expression(self, node["value"], ())
            elif self.plan.looked_up(node):
                found = self.name(ELEMENTS[node.op](self, node, at, valid))
            else:
                found = self.load(node, at, valid)
            self.known[key] = found
        return found

    def name(self, value: Index) -> Index:
        if re.fullmatch(r"-?[\w.]+", value.text):
            return value
        if value.text not in self.named:
            variable = self.variable()
            self.emit(f"{variable} = {value.text}")
            self.named[value.text] = Index(variable, value.spans)
        return self.named[value.text]

    def along_row(
        self, form: str, at: At, element: Callable[[At], Index], *operands: Index
    ) -> Index:
        value = element((*at, self.space.coordinates[-1]))
        text = _ALONG_ROW[form].format(value.text, *(x.text for x in operands))
        return self.name(Index(text, ROWS))

    def total(self, dims: Shape, element: Callable[[At], Index]) -> Index:
        total = self.variable()
        self.emit(f"{total} = tl.where(mr & mc, 0.0, 0.0)")
        with self.loop(extent(dims)) as index:
            self.emit(f"{total} += {element(split(dims, index)).text}")
        return Index(total, TILE)

    # --- statements -----------------------------------------------------------------------------

    def variable(self) -> str:
        """A new identifier."""
        self.count += 1
        return f"v{self.count - 1}"

    def emit(self, line: str) -> None:
        """Writes a statement, the coordinates that it uses defined before."""
        for axis in sorted(set(map(int, re.findall(r"\ba(\d+)\b", line)))):
            self.header[f"a{axis} = {self.space.definition(axis).text}"] = None
        self.lines.append("    " * self.depth + line)

    @contextmanager
    def loop(self, count: str) -> Iterator[Index]:
        """A loop; what is named in it is not known behind it."""
        known, named = dict(self.known), dict(self.named)
        index = f"l{self.depth}"
        self.emit(f"for {index} in range({count}):")
        self.depth += 1
        yield Index(index)
        self.depth -= 1
        self.known, self.named = known, named

    def pointer(self, buffer: Buffer) -> str:
        """The pointer of a buffer."""
        pointers = self.code.pointers
        if buffer not in pointers:
            pointers.append(buffer)
        return f"p[{pointers.index(buffer)}]"

    def address(self, shape: Shape, at: At) -> Index:
        """Where an element lies."""
        if at and at == self.space.home(shape):
            return Index("r", ROWS) if self.space.along_rows(shape) else Index("e", TILE)
        return linear(shape, at)

    def load(self, node: Node, at: At, valid: Index | None) -> Index:
        """A value from memory; 0 outside the tile and where it is not valid."""
        where = self.address(node.shape, at)
        across = any("columns" in index.spans for index in at)
        in_order = not across or at[-1:] == self.space.coordinates[-1:]
        home = at == self.space.home(node.shape)
        self.code.accesses.append(Access(node, False, home, in_order))
        if valid is not None and not valid.spans <= where.spans:  # as many addresses as masks
            where = Index(f"tl.where({valid.text}, {where.text}, 0)", where.spans | valid.spans)
        masks = [_MASK[s] for s in sorted(where.spans, reverse=True)]
        masks += [valid.text] if valid is not None else []
        masked = f", mask={' & '.join(masks)}, other=0" if masks else ""
        text = f"tl.load({self.pointer(node)} + {where.text}{masked})"
        return self.name(Index(text + _widen(node), where.spans))

    def store(self, node: Node, value: Index) -> None:
        """Writes a value that lives in the kernel's space."""
        self.code.accesses.append(Access(node, True))
        where = self.address(node.shape, self.space.home(node.shape) or ())
        masks = " & ".join(_MASK[s] for s in sorted(where.spans, reverse=True))
        masked = f", mask={masks}" if masks else ""
        self.emit(f"tl.store({self.pointer(node)} + {where.text}, {value.text}{masked})")

    # --- a kernel's nodes -----------------------------------------------------------------------

    def define(self, node: Node, value: Index) -> None:
        """Notes that a node's value is in registers, and writes it if somebody reads it."""
        value = self.name(value)
        self.known[node, self.space.home(node.shape) or (), None] = value
        if node in self.kernel.writes:
            self.store(node, value)

    def compute(self, node: Node) -> None:
        """A node of the body."""
        if is_partial(node):
            self.define(node, self.added(node))
        elif node.op in ELEMENTS:
            home = self.space.home(node.shape) or ()
            self.define(node, ELEMENTS[node.op](self, node, home, None))
        else:
            self.anchor(node, self.accumulated(node))

    def anchor(self, node: Node, value: Index) -> None:
        """The value of a contraction from its accumulator: bias and scale."""
        if "scale" in node.attributes:
            scale = expression(self, node["scale"], ())
            value = Index(f"{value.text} * {scale.text}", value.spans)
        self.define(node, self.biased(node, value))

    def biased(self, node: Node, value: Index) -> Index:
        """A value plus the contraction's bias."""
        for bias in node.inputs[2:]:
            b = self.value(bias, (self.space.coordinates[-1],), None)
            value = Index(f"{value.text} + {b.text}", TILE)
        return value

    def accumulated(self, node: Node) -> Index:
        """Σ over the parts of a split accumulator."""
        head = next(k for k in self.kernel.adds if node in k.anchors)
        total = self.variable()
        self.emit(f"{total} = tl.where(mr & mc, 0.0, 0.0)")
        with self.loop(str(head.way.splits)) as part:
            where = f"{part.text} * ({extent(self.space.shape)}) + e"
            load = f"tl.load({self.pointer(Part(node))} + {where}, mask=mr & mc, other=0)"
            self.emit(f"{total} += {load}")
        return Index(total, TILE)

    def joint(self, node: Node, head: Kernel, accumulator: Index) -> None:
        """The map in which anchors meet, of the accumulator that has taken all of them."""
        home = self.space.home(node.shape) or ()
        for anchor in head.joined[:-1]:
            self.known[anchor, home, None] = self.name(self.biased(anchor, Index("0.0")))
        self.known[head.anchors[-1], home, None] = self.name(
            self.biased(head.anchors[-1], accumulator)
        )
        self.define(node, ELEMENTS[Op.MAP](self, node, home, None))

    def added(self, node: Node) -> Index:
        """Σ over the parts that tiles have written."""
        producer = self.plan.part_of[node]
        tile, rows = self.tiles[producer], extent(producer.space.rows)
        parts = f"({rows} + {tile.rows - 1}) // {tile.rows}"
        pointer = self.pointer(Part(node))
        if reduction(node) == "all":
            strips = 1 if producer.space.along_rows(node.inputs[0].shape) else tile.strips
            return Index(f"add_all({pointer}, {parts} * {strips})")
        columns = producer.space.columns
        return Index(f"add_rows({pointer}, {parts}, {columns}, c, mc)", COLUMNS)

    def part(self, node: Node) -> None:
        """A tile's part of a sum."""
        (x,) = node.inputs
        value = self.value(x, self.space.home(x.shape) or (), None)
        pointer = self.pointer(Part(node))
        strips = self.tiles[self.kernel].strips
        if reduction(node) == "columns":
            total = self.name(
                Index(f"tl.sum(tl.where(mr & mc, {value.text}, 0.0), axis=0, keep_dims=True)")
            )
            where = f"i * {self.space.columns} + c"
            self.emit(f"tl.store({pointer} + {where}, {total.text}, mask=mc)")
        elif self.space.along_rows(x.shape):
            self.emit(f"tl.store({pointer} + i, tl.sum(tl.where(mr, {value.text}, 0.0)))")
        else:
            total = f"tl.sum(tl.where(mr & mc, {value.text}, 0.0))"
            self.emit(f"tl.store({pointer} + i * {strips} + j, {total})")

    def body(self) -> list[str]:
        """The finished function's statements."""
        header = ["r = m[:, None]", "c = n[None, :]", f"e = r * {self.space.columns} + c"]
        header += sorted(self.header, key=lambda line: int(line[1 : line.index(" ")]))
        return [f"# {self.kernel}", *header, *self.lines]


def _widen(node: Node) -> str:
    """Labels may be stored in 64 bits, rounded operands in 16."""
    if node.type.kind == "int":
        return ".to(tl.int32)" if node.op is Op.INPUT else ""
    return ".to(tl.float32)" if is_rounded(node) else ""


def kernel_code(
    kernel: Kernel, plan: Schedule, tiles: Mapping[Kernel, Tile], functions: Functions
) -> Code:
    """The slots of a kernel, added to the functions of its module."""
    code = Code()
    if kernel.opaque:
        return code
    last = max(0, len(kernel.anchors) - 1)
    for stage in range(last + 1):
        writer = _Writer(kernel, plan, tiles, code)
        if kernel.way.splits > 1:
            _store_part(writer, kernel, stage)
        else:
            _stage(writer, kernel, stage)
        slot = functions.add("slot", PARAMETERS, writer.body()) if writer.lines else None
        code.stages.append(slot)
        writer = _Writer(kernel, plan, tiles, code)
        ratio = _ratio(writer, stage) if stage < last else None
        named = functions.add("ratio", f"p, {BATCH_SIZE}", ratio) if ratio else None
        code.ratios.append(named)
    return code


def _store_part(writer: _Writer, kernel: Kernel, stage: int) -> None:
    """A split accumulator is written as it is."""
    if kernel.joint is not None and stage < len(kernel.anchors) - 1:
        return
    pointer = writer.pointer(Part(kernel.anchors[stage]))
    where = f"k * ({extent(kernel.space.shape)}) + e"
    writer.emit(f"tl.store({pointer} + {where}, acc, mask=mr & mc)")


def _stage(writer: _Writer, kernel: Kernel, stage: int) -> None:
    """All nodes that can be computed after an anchor, and only then."""
    plan, accumulator = writer.plan, Index("acc", TILE)
    last = max(0, len(kernel.anchors) - 1)
    body = [n for n in kernel.body if last == 0 or plan.stage(kernel, n, False) == stage]
    partials = [n for n in kernel.partials if last == 0 or plan.stage(kernel, n, True) == stage]
    joined = kernel.joint is not None and stage == last
    if kernel.anchors and not joined and (body or partials or kernel.anchors[0] in kernel.writes):
        writer.anchor(kernel.anchors[stage], accumulator)
    for node in body:
        if node is kernel.joint:
            writer.joint(node, kernel, accumulator)
        elif kernel.adds and node is kernel.adds[0].joint:
            writer.joint(node, kernel.adds[0], writer.accumulated(kernel.adds[0].anchors[-1]))
        else:
            writer.compute(node)
    for node in partials:
        writer.part(node)


def _ratio(writer: _Writer, stage: int) -> list[str] | None:
    """The factor that takes an accumulator to the scale of the next anchor; None for 1."""
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
        writer.value(x.inputs[0], (), None) if i in scalar.operands(ratio) else Index("0.0")
        for i, x in enumerate(kernel.joint.inputs)
    ]
    result = expression(writer, ratio, operands)
    return [*writer.lines, f"return {result.text}"]
