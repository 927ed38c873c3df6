"""A graph at a batch size as fused kernels: generated code, where every value lies, launches.

Results are written where the caller wants them, or to new memory; everything else lives in an arena
that belongs to the plan, so a call allocates nothing besides its results.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
import triton
from torch import Tensor

from ...compiler.graph import ops, scalar
from ...compiler.graph.ir import Graph, Node, Op, concrete
from ...compiler.graph.memory import Arena, Lifetime, arena, shared
from ...compiler.lowering.code import Buffer, Code, Part, Tile
from ...compiler.lowering.codegen import Launch, generate
from ...compiler.lowering.elements import Reduction, reduction
from ...compiler.lowering.kernel import Kernel, Schedule, base
from ...compiler.lowering.precision import ROUNDED, is_rounded
from ...compiler.lowering.schedule import schedule
from ...kernels.lags import assemble, rectangle_products
from ...kernels.pointwise import tile_shape
from ..aten.pointwise import tensor_cores
from ..aten.rules import ATEN
from ..backend import Context
from . import codecache
from .compiling import Job, compile_here, current_target, distinct
from .replay import Replays

if TYPE_CHECKING:
    from .executor import Settings


def dtype_of(buffer: Buffer) -> torch.dtype:
    """What a buffer's elements are stored as."""
    if isinstance(buffer, Node) and buffer.type.kind == "int":
        return torch.int32
    half = isinstance(buffer, Node) and is_rounded(buffer) and buffer["expr"].op == "bf16"
    return torch.bfloat16 if half else torch.float32


def _pointer(buffer: Buffer) -> str:
    """The Triton type of a buffer's pointer; labels have 64 bits."""
    if isinstance(buffer, Node) and buffer.op is Op.INPUT and buffer.type.kind == "int":
        return "*i64"
    return {torch.float32: "*fp32", torch.int32: "*i32", torch.bfloat16: "*bf16"}[dtype_of(buffer)]


def _sums_columns(node: Node) -> bool:
    return node.op is Op.REDUCE_SUM and reduction(node) is Reduction.COLUMNS


class Plan:
    """A graph at a batch size: generated code, where every value lies, what to launch."""

    def __init__(self, graph: Graph, batch: int, settings: Settings, keep_made: bool) -> None:
        self.batch, self.settings = batch, settings
        self.schedule: Schedule = schedule(graph, batch, settings.way)
        self.choices = {
            k: settings.choice(k.anchors[0], batch, k.shares_loop)
            for k in self.schedule.kernels
            if k.anchors and not k.way.by_vendor and not k.opaque
        }
        self.tiles = {k: self._tile(k) for k in self.schedule.kernels}
        self.source, self.launches = generate(self.schedule, self.tiles)
        self.module = codecache.module(self.source, {})
        self.made = [n for n in self.schedule.made() if keep_made]
        self.results = {base(n) for n in graph.outputs.values()} | set(self.made)
        spans = self.spans()
        self.lifetimes = {
            b: Lifetime(self.size(b) * dtype_of(b).itemsize, *span)
            for b, span in spans.items()
            if not self.outside(b)
        }
        blocks, self.block = shared(self.lifetimes, self.over(spans))
        self.arena: Arena[Buffer] = arena(blocks)
        self.addressed = [b for b in spans if self.outside(b)]
        self.memory: Tensor | None = None
        self.tables: dict[Node, tuple[Tensor, ...]] = {}
        self.replays = Replays(settings.record)

    def _tile(self, kernel: Kernel) -> Tile:
        rows = math.prod(concrete(kernel.space.rows, self.batch))
        columns = kernel.space.columns
        if kernel in self.choices:
            return self.choices[kernel].tile
        elements = self.settings.elements
        widest = 256 if kernel.space.rows else elements
        if any(map(_sums_columns, kernel.partials)):
            widest, elements = 64, 2 * elements  # tall: few parts
        if any(map(_sums_columns, kernel.body)):
            widest = 16  # many rows are added at once, by many programs
        if kernel.whole_rows:  # more values are alive at once
            widest, elements = 2 * columns, elements // 2
        br, bc = tile_shape(rows, columns, widest, elements)
        return Tile(br, bc, -(-columns // bc))

    def _slots(self, kernel: Kernel, code: Code) -> dict[str, tuple[Any, ...]]:
        """The generated functions that a contraction takes."""
        together = self.choices[kernel].constants.get("TOGETHER", False)
        ratios = [None] * len(code.ratios) if together else code.ratios
        return {
            "STAGES": tuple(name and getattr(self.module, name) for name in code.stages),
            "RATIOS": tuple(name and getattr(self.module, name) for name in ratios),
        }

    @property
    def _limits(self) -> dict[str, int]:
        """Options of pointwise kernels."""
        return {} if self.settings.interpreted else self.settings.chip.limits

    @property
    def scratch(self) -> int:
        """Bytes of the arena."""
        return self.arena.size

    def size(self, buffer: Buffer) -> int:
        """Elements of a buffer."""
        if isinstance(buffer, Node):
            return buffer.type.numel(self.batch)
        node = buffer.of
        if node.op is not Op.REDUCE_SUM:
            head = self.schedule.accumulated_by[node]
            if head.opaque and not head.way.by_vendor:
                return self.settings.patches(node, self.batch).scratch
            return head.way.splits * node.type.numel(self.batch)
        kernel = self.schedule.part_of[node]
        tile = self.tiles[kernel]
        rows = -(-math.prod(concrete(kernel.space.rows, self.batch)) // tile.rows)
        return rows * max(tile.strips, kernel.space.columns if node.shape else 1)

    def spans(self) -> dict[Buffer, tuple[int, int]]:
        """Of every buffer, the launch that writes it and the last one that reads it."""
        found: dict[Buffer, tuple[int, int]] = {}
        for i, launch in enumerate(self.launches):
            for kernel, code in zip(launch.kernels, launch.codes, strict=True):
                operands = [x for a in kernel.anchors for x in self.schedule.operands[a]]
                own = [Part(a) for a in kernel.anchors if kernel.way.by_vendor or kernel.opaque]
                written = kernel.writes if kernel.opaque else ()
                for buffer in (*code.pointers, *operands, *own, *written):
                    found[buffer] = found.get(buffer, (i, i))[0], i
        return found

    def over(self, spans: Mapping[Buffer, tuple[int, int]]) -> dict[Buffer, Buffer]:
        """Values that are written over one that nobody reads afterwards."""
        found: dict[Buffer, Buffer] = {}
        for i, launch in enumerate(self.launches):
            operands = {
                x for k in launch.kernels for a in k.anchors for x in self.schedule.operands[a]
            }
            taken = Counter(b for code in launch.codes for b in code.pointers)
            for kernel, code in zip(launch.kernels, launch.codes, strict=True):
                free = [x for x in kernel.reads if x in self.lifetimes and spans[x][1] == i]
                for y in kernel.writes:
                    fits = [
                        x
                        for x in free
                        if spans[y][0] == i
                        and y in self.lifetimes
                        and taken[x] == (x in code.pointers)  # no other kernel reads it
                        and x not in operands
                        and self.lifetimes[x].size == self.lifetimes[y].size
                        and code.may_replace(x, y)
                    ]
                    if fits:
                        found[y] = fits[0]
                        free.remove(fits[0])
        return found

    def outside(self, buffer: Buffer) -> bool:
        """Whether a buffer is given or a result, and not in the arena."""
        return self.given(buffer) or buffer in self.results

    def given(self, buffer: Buffer) -> bool:
        """Whether a buffer comes from outside."""
        return isinstance(buffer, Node) and buffer in self.schedule.leaves

    def tensors(
        self, context: Context, feed: Mapping[Node, Tensor], out: Mapping[Node, Tensor]
    ) -> Callable[[Buffer], Tensor]:
        """The memory of every buffer for one call; that of results may be given in `out`."""
        if self.memory is None:
            if context.device.type == "cuda":
                self.prepare()
            self.memory = torch.empty(self.arena.size, dtype=torch.uint8, device=context.device)
        memory, found = self.memory, dict[Buffer, Tensor]()

        def tensor(buffer: Buffer) -> Tensor:
            if buffer not in found:
                dtype, size = dtype_of(buffer), self.size(buffer)
                if isinstance(buffer, Node) and buffer in feed:
                    found[buffer] = feed[buffer].contiguous()
                elif self.given(buffer):
                    assert isinstance(buffer, Node)
                    image = feed[buffer.inputs[0]]
                    found[buffer] = image.permute(buffer["order"]).contiguous()
                elif isinstance(buffer, Node) and buffer in out:
                    found[buffer] = out[buffer]
                elif buffer in self.results:
                    found[buffer] = torch.empty(size, dtype=dtype, device=context.device)
                else:
                    start = self.arena.offsets[self.block.get(buffer, buffer)]
                    found[buffer] = memory[start : start + size * dtype.itemsize].view(dtype)
            return found[buffer]

        return tensor

    def __call__(
        self,
        context: Context,
        feed: Mapping[Node, Tensor],
        out: Mapping[Node, Tensor] | None = None,
    ) -> Callable[[Buffer], Tensor]:
        """Runs all launches, or replays them; results in `out` are written there."""
        tensor = self.tensors(context, feed, out or {})

        def addresses() -> tuple[int, ...]:
            return tuple(tensor(buffer).data_ptr() for buffer in self.addressed)

        self.replays(addresses, lambda: self._launch(context, tensor))
        return tensor

    def _launch(self, context: Context, tensor: Callable[[Buffer], Tensor]) -> None:
        for launch in self.launches:
            if launch.function is not None:
                self._pointwise(launch, tensor)
            elif launch.kernels[0].way.by_vendor:
                self._vendor(launch.kernels[0].anchors[0], context, tensor)
            elif launch.kernels[0].opaque:
                self._patch_gram(launch.kernels[0].anchors[0], tensor)
            else:
                self._contraction(launch, tensor)

    def jobs(self, name: str) -> Iterator[Job]:
        """Every kernel as it will be launched, to compile ahead of time."""
        unit = 8 if self.settings.precision == "bf16" else 4  # elements of 16 bytes
        for i, launch in enumerate(self.launches):
            code, kernel = launch.codes[0], launch.kernels[0]
            wide = frozenset(
                name
                for k, each in zip(launch.kernels, launch.codes, strict=True)
                for name in each.stages
                if name and each.in_order and k.space.columns % unit == 0
            )
            label = f"{name} {i} {kernel.space} {(*kernel.nodes, *kernel.partials)[0].op.value}"
            if launch.function is not None:
                function = getattr(self.module, launch.function)
                types: dict[str, Any] = dict.fromkeys(function.arg_names, "i32")
                for q, each in enumerate(launch.codes):
                    types[f"p{q}"] = tuple(map(_pointer, each.pointers))
                yield Job(label, "pointwise", function, types, self._limits, wide=wide)
            elif kernel.way.by_vendor:
                continue
            elif kernel.opaque:
                choice = self.settings.patches(kernel.anchors[0], self.batch)
                yield from choice.jobs(label)
            else:
                choice = self.choices[kernel]
                operands = [self.schedule.operands[a] for a in kernel.anchors]
                first, second = choice.kernel.arg_names[:2]
                constants = {**choice.constants, **self._slots(kernel, code)}
                warps, stages = constants.pop("num_warps"), constants.pop("num_stages")
                types = {
                    **dict.fromkeys(choice.kernel.arg_names, "i32"),
                    first: tuple(_pointer(both[0]) for both in operands),
                    second: tuple(_pointer(both[-1 if len(both) == 1 else 1]) for both in operands),
                    "p": tuple(map(_pointer, code.pointers)),
                }
                copied = [constants["C"], constants.get("OC", constants.get("COLUMNS"))]
                yield Job(
                    label, choice.kernel.__name__, choice.kernel, types, constants,
                    self.settings.precision if constants["PREC"] == "tf32" else constants["PREC"],
                    warps, stages, flat=constants.get("FLAT", constants["C"] < 16),
                    narrow=min(copied) < 64 or any(c % unit for c in copied),
                    tile=(constants["BM"], constants["BN"], constants["BK"]), wide=wide,
                    products=3 if constants.get("TOGETHER") else 1,
                )  # fmt: skip

    def prepare(self) -> None:
        """Compiles all kernels for the current GPU, in as many processes as there are cores.

        A note is left, so that it happens once per GPU and version.
        """
        jobs = distinct(self.jobs(""))
        note = f"compiled-{codecache.digest(f'{current_target()} {triton.__version__} {jobs}')}"
        if codecache.stored(note) is None:
            compile_here(jobs)
            codecache.store(note, f"{self.schedule.graph.name} for {current_target()}\n")

    def _contraction(self, launch: Launch, tensor: Callable[[Buffer], Tensor]) -> None:
        (kernel,), (code,) = launch.kernels, launch.codes
        choice = self.choices[kernel]
        operands = [self.schedule.operands[a] for a in kernel.anchors]
        choice.kernel[(choice.programs,)](
            tuple(tensor(x) for x, *_ in operands),
            tuple(tensor(y) for _, y, *_ in operands)
            if len(operands[0]) > 1
            else tuple(tensor(x) for x, *_ in operands),
            tuple(tensor(b) for b in code.pointers),
            self.batch,
            choice.rows,
            choice.trips,
            **choice.constants,
            **self._slots(kernel, code),
        )

    def _pointwise(self, launch: Launch, tensor: Callable[[Buffer], Tensor]) -> None:
        programs = []
        for kernel in launch.kernels:
            rows = math.prod(concrete(kernel.space.rows, self.batch))
            tile = self.tiles[kernel]
            programs.append(-(-rows // tile.rows) * tile.strips)
        pointers = [tuple(tensor(b) for b in code.pointers) for code in launch.codes]
        ends = [sum(programs[: q + 1]) for q in range(len(programs) - 1)]
        function = getattr(self.module, launch.function or "")
        function[(sum(programs),)](*pointers, *ends, self.batch, **self._limits)

    def _patch_gram(self, node: Node, tensor: Callable[[Buffer], Tensor]) -> None:
        """Products of rectangles, then the blocks that they sum to."""
        choice, (image,) = self.settings.patches(node, self.batch), self.schedule.operands[node]
        if node not in self.tables:
            place = self.memory.device if self.memory is not None else None
            self.tables[node] = tuple(t.to(place) for t in choice.shapes.tables)
        items, pairs, terms = self.tables[node]
        products, out = tensor(Part(node)), tensor(node)
        rectangle_products[(choice.programs,)](
            tensor(image), items, products, self.batch, **choice.constants
        )
        scale = scalar.evaluate(node["scale"], self.batch)
        patches = float(self.batch * choice.shapes.patches)
        assemble[(choice.blocks,)](products, pairs, terms, out, scale, patches, **choice.assembly)

    def _vendor(self, node: Node, context: Context, tensor: Callable[[Buffer], Tensor]) -> None:
        """A contraction by PyTorch's operator, without bias and scale.

        Rounded operands are multiplied as float32: their products are exact in tf32 too.
        """
        plain = ops.make(
            node.op,
            *node.inputs[:2],
            **{**node.attributes, **({"scale": scalar.ONE} if "scale" in node.attributes else {})},
        )
        operands = [
            tensor(base(x)).view(concrete(x.shape, self.batch)).to(torch.float32)
            for x in plain.inputs
        ]
        rounded = self.settings.precision in ROUNDED and node.op is not Op.SPECTRAL
        with tensor_cores(context.device, rounded):
            result = ATEN[plain.op](plain)(context, *operands)
        tensor(Part(node)).copy_(result.reshape(-1))
