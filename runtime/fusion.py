"""Runs a graph as fused Triton kernels: schedule, generated module, arena, launches.

A plan is made once per batch size. What a call returns is new memory; everything else lives in an
arena that belongs to the plan, so a call allocates nothing besides its results.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..compiler import ops, scalar
from ..compiler.codegen import Launch, generate
from ..compiler.ir import Graph, Node, Op, concrete
from ..compiler.memory import Arena, Lifetime, arena
from ..compiler.precision import is_rounded, with_precision
from ..compiler.schedule import Kernel, Schedule, base, schedule
from ..compiler.slots import Buffer, Part, Tile
from ..kernels.pointwise import tile_shape
from .aten import ATEN
from .codecache import module
from .contractions import Choice, choose
from .pointwise import Run


def _dtype(buffer: Buffer) -> torch.dtype:
    if isinstance(buffer, Node) and buffer.type.kind == "int":
        return torch.int32
    half = isinstance(buffer, Node) and is_rounded(buffer) and buffer["expr"].op == "bf16"
    return torch.bfloat16 if half else torch.float32


@dataclass(frozen=True)
class Settings:
    """How kernels are made.

    precision: of contractions. fused: whether contractions are fused kernels, or the vendor's.
    interpreted: whether kernels run in the interpreter. elements: of a pointwise tile.
    """

    precision: str = "ieee"
    fused: bool = False
    interpreted: bool = False
    elements: int = 2048

    @staticmethod
    def choose(precision: str, contractions: str, interpreted: bool) -> Settings:
        """Settings for a device."""
        fused = contractions == "fused" or (contractions == "auto" and interpreted)
        return Settings(precision, fused, interpreted, 8192 if interpreted else 2048)

    def choice(self, node: Node, batch: int) -> Choice | None:
        """How a contraction is launched; None where PyTorch computes it."""
        return choose(node, batch, self.precision, self.interpreted) if self.fused else None

    def splits(self, node: Node, batch: int) -> int:
        """Parts of a contraction, 0 for the vendor's."""
        choice = self.choice(node, batch)
        return 0 if choice is None else choice.split


class Plan:
    """A graph at a batch size: generated code, where every value lies, what to launch."""

    def __init__(self, graph: Graph, batch: int, settings: Settings, keep_made: bool) -> None:
        self.batch, self.settings = batch, settings
        self.schedule: Schedule = schedule(graph, batch, settings.splits)
        self.tiles = {k: self._tile(k) for k in self.schedule.kernels}
        self.source, self.launches = generate(self.schedule, self.tiles)
        self.module = module(self.source, {})
        self.made = [n for n in self.schedule.made() if keep_made]
        self.results = {base(n) for n in graph.outputs.values()} | set(self.made)
        self.arena: Arena[Buffer] = arena(self._lifetimes())
        self.memory: Tensor | None = None

    def _tile(self, kernel: Kernel) -> Tile:
        rows = math.prod(concrete(kernel.space.rows, self.batch))
        columns = kernel.space.columns
        if kernel.anchors and kernel.splits:
            return self._choice(kernel.anchors[0]).tile
        br, bc = tile_shape(rows, columns, kernel.whole_rows, self.settings.elements)
        return Tile(br, bc, -(-columns // bc))

    def size(self, buffer: Buffer) -> int:
        """Elements of a buffer."""
        if isinstance(buffer, Node):
            return buffer.type.numel(self.batch)
        node = buffer.of
        if node.op is not Op.REDUCE_SUM:
            head = next(k for k in self.schedule.kernels if node in k.anchors)
            return max(1, head.splits) * node.type.numel(self.batch)
        kernel = self.schedule.part_of[node]
        tile = self.tiles[kernel]
        rows = -(-math.prod(concrete(kernel.space.rows, self.batch)) // tile.rows)
        return rows * max(tile.strips, kernel.space.columns if node.shape else 1)

    def _lifetimes(self) -> dict[Buffer, Lifetime]:
        """From the launch that writes a buffer to the last one that reads it."""
        first: dict[Buffer, int] = {}
        last: dict[Buffer, int] = {}
        for i, launch in enumerate(self.launches):
            for kernel, code in zip(launch.kernels, launch.codes, strict=True):
                operands = [x for a in kernel.anchors for x in self.schedule.operands[a]]
                own = [Part(a) for a in kernel.anchors if kernel.splits == 0]
                for buffer in (*code.pointers, *operands, *own):
                    first.setdefault(buffer, i)
                    last[buffer] = i
        return {
            b: Lifetime(self.size(b) * _dtype(b).itemsize, first[b], last[b])
            for b in first
            if not self.given(b) and b not in self.results
        }

    def given(self, buffer: Buffer) -> bool:
        """Whether a buffer comes from outside."""
        return isinstance(buffer, Node) and self.schedule.leaf(buffer)

    def tensors(self, run: Run, feed: Mapping[Node, Tensor]) -> Callable[[Buffer], Tensor]:
        """The memory of every buffer for one call."""
        if self.memory is None:
            self.memory = torch.empty(self.arena.size, dtype=torch.uint8, device=run.device)
        memory, found = self.memory, dict[Buffer, Tensor]()

        def tensor(buffer: Buffer) -> Tensor:
            if buffer not in found:
                dtype, size = _dtype(buffer), self.size(buffer)
                if isinstance(buffer, Node) and buffer in feed:
                    found[buffer] = feed[buffer].contiguous()
                elif self.given(buffer):
                    assert isinstance(buffer, Node)
                    image = feed[buffer.inputs[0]]
                    found[buffer] = image.permute(buffer["order"]).contiguous()
                elif buffer in self.results:
                    found[buffer] = torch.empty(size, dtype=dtype, device=run.device)
                else:
                    start = self.arena.offsets[buffer]
                    found[buffer] = memory[start : start + size * dtype.itemsize].view(dtype)
            return found[buffer]

        return tensor

    def __call__(self, run: Run, feed: Mapping[Node, Tensor]) -> Callable[[Buffer], Tensor]:
        """Runs all launches."""
        tensor = self.tensors(run, feed)
        for launch in self.launches:
            if launch.function is not None:
                self._pointwise(launch, tensor)
            elif launch.kernels[0].splits == 0:
                self._vendor(launch.kernels[0].anchors[0], run, tensor)
            else:
                self._contraction(launch, tensor)
        return tensor

    def _choice(self, node: Node) -> Choice:
        choice = self.settings.choice(node, self.batch)
        assert choice is not None
        return choice

    def _contraction(self, launch: Launch, tensor: Callable[[Buffer], Tensor]) -> None:
        (kernel,), (code,) = launch.kernels, launch.codes
        choice = self._choice(kernel.anchors[0])
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
            STAGES=tuple(name and getattr(self.module, name) for name in code.stages),
            RATIOS=tuple(name and getattr(self.module, name) for name in code.ratios),
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
        function[(sum(programs),)](*pointers, *ends, self.batch)

    def _vendor(self, node: Node, run: Run, tensor: Callable[[Buffer], Tensor]) -> None:
        """A contraction by PyTorch's operator, without bias and scale."""
        plain = ops.make(
            node.op,
            *node.inputs[:2],
            **{**node.attributes, **({"scale": scalar.ONE} if "scale" in node.attributes else {})},
        )
        operands = [tensor(base(x)).view(concrete(x.shape, self.batch)) for x in plain.inputs]
        tensor(Part(node)).copy_(ATEN[plain.op](plain)(run, *operands).reshape(-1))


class FusedExecutor:
    """A graph as fused kernels; called like `Executor`.

    With `keep`, operands that were made for contractions (rounded, transposed) are returned as
    well, under their own nodes: fed to another program of the network, they are not made again.
    """

    def __init__(self, graph: Graph, keep: Iterable[Node], settings: Settings) -> None:
        self.settings = settings
        self.outputs = [*graph.outputs.values(), *(n for n in keep if n not in graph.given)]
        tape = Graph(graph.name, {str(i): n for i, n in enumerate(self.outputs)}, graph.given)
        self.graph, self.lowered = with_precision(tape, settings.precision)
        self.keeps = len(self.outputs) > len(graph.outputs)
        self.plans: dict[int, Plan] = {}

    def plan(self, batch: int, given: Iterable[Node] = ()) -> Plan:
        """The plan for a batch size; `given` are the nodes that will be fed."""
        if batch not in self.plans:
            known = frozenset(self.lowered.get(n, n) for n in given) | self.graph.given
            graph = Graph(self.graph.name, self.graph.outputs, known)
            self.plans[batch] = Plan(graph, batch, self.settings, self.keeps)
        return self.plans[batch]

    @torch.no_grad()
    def __call__(self, run: Run, feed: Mapping[Node, Tensor]) -> dict[Node, Tensor]:
        """Tensors of the outputs and of `keep`, by node."""
        plan = self.plan(run.batch, feed)
        tensor = plan(run, {self.lowered.get(n, n): x for n, x in feed.items()})

        def result(node: Node) -> Tensor:
            if node.op is Op.CONST:
                number = scalar.evaluate(node["value"], run.batch)
                return torch.tensor(number, dtype=run.dtype, device=run.device)
            return tensor(base(node)).view(concrete(node.shape, run.batch))

        made = {n: result(n) for n in plan.made}
        return made | {n: result(self.lowered[n]) for n in self.outputs}
