"""The kinds of launch: pointwise, contractions, patch Grams, rows added, the vendor's, streams.

A launch is made once per plan, of what the code generator has written, and run in every call. To
add a kind: a class here, and its entry in `KINDS`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import ModuleType
from typing import Any, Protocol

import torch
from torch import Tensor

from ...compiler.graph import ops, scalar
from ...compiler.graph.ir import CONTRACTIONS, Node, Op, concrete
from ...compiler.lowering.code import Code, Overwriting, Part, Tile
from ...compiler.lowering.codegen import LaunchCode
from ...compiler.lowering.kernel import Kernel, Schedule, base
from ...compiler.lowering.precision import ROUNDED
from ...compiler.passes.passes import PassCode, Refusal
from ...compiler.streaming.views import View
from ...kernels.lags import assemble, rectangle_products
from ...kernels.scatter_rows import (
    add_parts,
    find_words,
    merge_runs,
    merges,
    scatter_rows,
    sort_runs,
)
from ..aten.executor import AtenExecutor
from ..aten.passing import BLOCK, Passing
from ..aten.rules import ATEN
from ..aten.switches import switches
from ..backend import Context
from ..footprint import META, Allocations
from . import codecache
from .call import Argument, Call, Memory, types_of
from .compiling import Job
from .settings import Settings
from .storage import Use
from .tiles import ContractionTiling, PatchTiling, RowTiling, Tiling

HELD_BY_FOUR_WARPS = 4096  # elements of a tile, several values of each, without spills
LARGE_BLOCK = 1 << 25  # elements of a wide value's block on a GPU: work for all of it


class Launch(Protocol):
    """Kernels that are launched together.

    Attributes:
        kernels: the kernels of the schedule that it computes.
        use: what it does with memory.
        calls: the Triton kernels that are called, in order.
        recordable: whether it can be part of a recording: nothing waits for the GPU.
    """

    kernels: Sequence[Kernel]
    use: Use
    calls: Sequence[Call]
    recordable: bool

    def run(self, context: Context, memory: Memory) -> None:
        """Launches the kernels.

        Args:
            context: batch size, dtype and device of the call.
            memory: where buffers lie in this call.
        """
        ...


class TritonLaunch(Launch):
    """Triton kernels that are called one after another."""

    recordable = True

    def run(self, context: Context, memory: Memory) -> None:
        """Calls them."""
        for call in self.calls:
            call(memory)


@dataclass(frozen=True)
class Generated:
    """A schedule with its tiles and its code: what launches are made of.

    Attributes:
        schedule: the kernels.
        batch: the batch size.
        settings: how kernels are generated.
        tilings: how contractions are tiled, unless the vendor's library computes them.
        tiles: what the slots of each kernel see at once.
        passes: the code of streams, or why there is none.
    """

    schedule: Schedule
    batch: int
    settings: Settings
    tilings: Mapping[Kernel, Tiling]
    tiles: Mapping[Kernel, Tile]
    passes: Mapping[Kernel, Sequence[PassCode] | Refusal]

    def operands(self, kernel: Kernel) -> list[Sequence[Node]]:
        """Returns what each contraction of a kernel reads."""
        return [self.schedule.operands[anchor] for anchor in kernel.anchors]

    def sums(self, kernel: Kernel) -> dict[Part, int]:
        """Returns the number of elements of the sums that the tiles of a kernel write."""
        tile, space = self.tiles[kernel], kernel.space
        rows = tile.down(math.prod(concrete(space.rows, self.batch)))
        return {
            Part(n): rows * max(tile.strips, space.columns if n.shape else 1)
            for n in kernel.partials
        }

    def wide(self, kernels: Sequence[Kernel], codes: Sequence[Code]) -> frozenset[str]:
        """Returns the slots whose accesses to whole tiles should be of 16 bytes."""
        return frozenset(
            name
            for kernel, code in zip(kernels, codes, strict=True)
            for name in code.stages
            if name and code.in_order and kernel.space.columns % self.unit == 0
        )

    @property
    def unit(self) -> int:
        """The number of operands' elements in 16 bytes."""
        return 8 if self.settings.precision == "bf16" else 4


class PointwiseLaunch(TritonLaunch):
    """Kernels without contractions: instances 0 … e0 work on the first, up to e1 on the second."""

    def __init__(self, slots: LaunchCode, module: ModuleType, generated: Generated) -> None:
        assert slots.function is not None
        self.kernels, self.codes = slots.kernels, slots.codes
        counts = []
        for kernel in slots.kernels:
            tile = generated.tiles[kernel]
            rows = math.prod(concrete(kernel.space.rows, generated.batch))
            counts.append(tile.down(rows) * tile.strips)
        arguments: dict[str, Argument] = {
            f"p{q}": tuple(c.pointers) for q, c in enumerate(slots.codes)
        }
        arguments |= {f"e{q}": sum(counts[: q + 1]) for q in range(len(counts) - 1)}
        arguments["batch"] = generated.batch
        target, function = generated.settings.target, getattr(module, slots.function)
        largest = max(t.rows * t.columns for t in map(generated.tiles.__getitem__, slots.kernels))
        job = Job(
            _title(self.kernels[0]), "pointwise", function, types_of(arguments),
            target.limits if target else {}, warps=4 if largest <= HELD_BY_FOUR_WARPS else 8,
            wide=generated.wide(slots.kernels, slots.codes),
        )  # fmt: skip
        self.calls = [Call(job, sum(counts), arguments)]
        self.use = Use(
            [buffer for code in slots.codes for buffer in code.pointers],
            {part: size for k in slots.kernels for part, size in generated.sums(k).items()},
            list(_overwriting(slots.kernels, slots.codes)),
        )


class ContractionLaunch(TritonLaunch):
    """A sum of contractions on one accumulator, which slots take from there."""

    def __init__(self, slots: LaunchCode, module: ModuleType, generated: Generated) -> None:
        (kernel,), (code,) = slots.kernels, slots.codes
        tiling = generated.tilings[kernel]
        assert isinstance(tiling, ContractionTiling)
        self.kernels = slots.kernels
        operands = generated.operands(kernel)
        first, second = tiling.skeleton.arg_names[:2]
        arguments: dict[str, Argument] = {
            first: tuple(both[0] for both in operands),
            second: tuple(both[:2][-1] for both in operands),  # of a Gram, the first again
            "p": tuple(code.pointers),
            "batch": generated.batch,
            **tiling.numbers,
        }
        job = self._job(code, module, tiling, generated)
        self.calls = [Call(replace(job, types=types_of(arguments)), tiling.instances, arguments)]
        read = [x for both in operands for x in both]
        parts = {
            Part(a): kernel.way.splits * a.type.numel(generated.batch)
            for a in kernel.anchors
            if kernel.way.apart
        }
        overwriting = list(_overwriting(slots.kernels, slots.codes, set(read)))
        self.use = Use([*code.pointers, *read], parts | generated.sums(kernel), overwriting)

    def _job(
        self, code: Code, module: ModuleType, tiling: ContractionTiling, generated: Generated
    ) -> Job:
        """Returns what the skeleton is compiled from, with its slots."""
        together = tiling.constants.get("TOGETHER", False)
        ratios = [None] * len(code.ratios) if together else code.ratios
        constants = {
            **tiling.constants,
            "STAGES": tuple(name and getattr(module, name) for name in code.stages),
            "RATIOS": tuple(name and getattr(module, name) for name in ratios),
        }
        warps, stages = constants.pop("num_warps", 4), constants.pop("num_stages", 3)
        precision, unit = generated.settings.precision, generated.unit
        copied = [constants["C"], constants.get("OC", constants.get("COLUMNS"))]
        return Job(
            _title(self.kernels[0]), tiling.skeleton.__name__, tiling.skeleton, {}, constants,
            precision=precision if constants["PREC"] == "tf32" else constants["PREC"],
            warps=warps, stages=stages, flat=constants.get("FLAT", constants["C"] < 16),
            narrow=min(copied) < 64 or any(c % unit for c in copied),
            odd=precision == "bf16" and any(c % 2 for c in copied),
            tile=(constants["BM"], constants["BN"], constants["BK"]),
            wide=generated.wide(self.kernels, [code]), products=3 if together else 1,
        )  # fmt: skip


class PatchGramLaunch(TritonLaunch):
    """A patch Gram: products of rectangles, then the blocks that they sum to."""

    def __init__(self, slots: LaunchCode, module: ModuleType, generated: Generated) -> None:
        (kernel,) = slots.kernels
        tiling = generated.tilings[kernel]
        assert isinstance(tiling, PatchTiling)
        self.kernels = slots.kernels
        ((image,),), (node,) = generated.operands(kernel), kernel.anchors
        products = Part(node)
        items, pairs, terms = tiling.shapes.tables
        given: dict[str, Argument] = {
            "a": image, "items": items, "products": products, "batch": generated.batch,
        }  # fmt: skip
        summed: dict[str, Argument] = {
            "products": products, "pairs": pairs, "terms": terms, "out": node,
            "scale": scalar.evaluate(node["scale"], generated.batch),
            "patches": float(generated.batch * tiling.shapes.patches),
        }  # fmt: skip
        constants, title = dict(tiling.constants), _title(kernel)
        warps, stages = constants.pop("num_warps", 4), constants.pop("num_stages", 3)
        multiply = Job(
            f"{title} products", "outer", rectangle_products, types_of(given), constants,
            constants["PREC"], warps, stages, flat=constants["C"] < 16,
            tile=(constants["BM"], constants["BN"], constants["BK"]),
        )  # fmt: skip
        add = Job(f"{title} assembly", "pointwise", assemble, types_of(summed), tiling.assembly)
        self.calls = [
            Call(multiply, tiling.instances, given),
            Call(add, tiling.assembly_instances, summed),
        ]
        self.use = Use([image, products, *kernel.writes], {products: tiling.scratch})


class ScatterLaunch(TritonLaunch):
    """Rows added at indices: these are sorted, and the rows of each word added in their order."""

    def __init__(self, slots: LaunchCode, module: ModuleType, generated: Generated) -> None:
        (kernel,), (code,) = slots.kernels, slots.codes
        tiling = generated.tilings[kernel]
        assert isinstance(tiling, RowTiling)
        self.kernels, instances = slots.kernels, tiling.instances
        ((rows, index),), (node,) = generated.operands(kernel), kernel.anchors
        first, second, starts = (Part(node, i) for i in range(3))
        sums, count, size, parts = Part(node), tiling.count, tiling.shapes.size, tiling.parts
        given: list[tuple[Any, dict[str, Argument]]] = [
            (sort_runs, {"index": index, "ordered": first, "count": count, "size": size})
        ]
        for run in merges(count, tiling.tiles.run):
            numbers = {"count": count, "run": run, "steps": run.bit_length()}
            given.append((merge_runs, {"ordered": first, "merged": second, **numbers}))
            first, second = second, first
        numbers = {"count": count, "size": size, "steps": count.bit_length()}
        given.append((find_words, {"ordered": first, "starts": starts, **numbers}))
        known = {"rows": rows, "ordered": first}
        if parts:
            given.append((add_parts, {**known, "sums": sums, "count": count, "parts": parts}))
        given.append((scatter_rows, {
            **known, "starts": starts, "sums": sums, "p": tuple(code.pointers),
            "batch": generated.batch, "total": tiling.rows, "count": count, "parts": parts,
        }))  # fmt: skip
        wide = generated.wide(slots.kernels, slots.codes)
        if tiling.shapes.columns % 4 == 0:
            wide |= {scatter_rows.__name__, add_parts.__name__}
        stages = {"STAGES": tuple(name and getattr(module, name) for name in code.stages)}
        constants = {**tiling.constants, scatter_rows: tiling.constants[scatter_rows] | stages}
        self.calls = [
            Call(
                Job(
                    f"{_title(kernel)} {function.__name__}", "pointwise", function,
                    types_of(arguments), constants[function], wide=wide,
                ),
                instances[function], arguments,
            )
            for function, arguments in given
        ]  # fmt: skip
        self.use = Use(
            [*code.pointers, rows, index, first, second, starts, sums],
            {
                first: 2 * count, second: 2 * count, starts: size + 1,
                sums: max(1, tiling.sums), **generated.sums(kernel),
            },
            list(_overwriting(slots.kernels, slots.codes, {rows, index})),
        )  # fmt: skip


class VendorLaunch(Launch):
    """A contraction by PyTorch's operator, without bias and scale: another kernel adds them.

    Rounded operands are multiplied as float32: their products are exact in tf32 too. Statistics,
    whose operands are not rounded, are not taken in tf32. The result stays where the operator puts
    it.
    """

    calls = ()

    def __init__(self, slots: LaunchCode, module: ModuleType, generated: Generated) -> None:
        (kernel,) = slots.kernels
        (self.node,) = kernel.anchors
        self.kernels, self.batch = slots.kernels, generated.batch
        # Eigenvalues are waited for, and other ranks, which may be on CPUs.
        self.recordable = self.node.op not in (Op.SPECTRAL, Op.ALL_SUM)
        self.rounded = generated.settings.precision in ROUNDED and self.node.op in CONTRACTIONS
        scale = {"scale": scalar.ONE} if "scale" in self.node.attributes else {}
        self.plain = ops.make(
            self.node.op, *self.node.inputs[:2], **{**self.node.attributes, **scale}
        )
        self.operator = ATEN[self.plain.op](self.plain)
        (read,) = generated.operands(kernel)
        self.use = Use(read, {}, elsewhere=[Part(self.node)])

    def run(self, context: Context, memory: Memory) -> None:
        """Calls the operator, and says where the next kernel finds its result."""
        operands = [self._operand(memory, x) for x in self.plain.inputs]
        with switches(context.device, self.rounded):
            result = self.operator(context, *operands)
        memory.put(Part(self.node), result.reshape(-1))

    def _operand(self, memory: Memory, x: Node) -> Tensor:
        """Returns an operand as the operator takes it; 32-bit indices are those that we stored."""
        value = memory(base(x)).view(concrete(x.shape, self.batch))
        return value if x.type.kind == "int" else value.to(torch.float32)


class PassLaunch(TritonLaunch):
    """What leaves a stream, tile by tile: passes over rows, over columns, and sums of their parts.

    Queries, keys and values are read where their projection lies.
    """

    def __init__(self, kernel: Kernel, codes: Sequence[PassCode], generated: Generated) -> None:
        self.kernels = [kernel]
        self.calls = [self._call(code, generated) for code in codes]
        scratch = {part: size for code in codes for part, size in code.scratch.items()}
        self.use = Use(list(dict.fromkeys(b for code in codes for b in code.buffers)), scratch)

    def _call(self, code: PassCode, generated: Generated) -> Call:
        target, precision = generated.settings.target, generated.settings.precision
        module = codecache.module(code.source, {"kernels": codecache.kernels_digest()})
        arguments: dict[str, Argument] = {"p": tuple(code.buffers), "batch": generated.batch}
        job = Job(
            code.name, "pass", getattr(module, code.function), types_of(arguments),
            target.limits if target else {}, target.product(precision) if target else precision,
            code.tile.warps, code.tile.stages, tile=(code.tile.own, code.tile.other, 0),
            products=code.products,
        )  # fmt: skip
        return Call(job, code.instances, arguments)


class BlocksLaunch(Launch):
    """What leaves a stream without passes, computed block by block on PyTorch's operators."""

    calls = ()
    recordable = True

    def __init__(self, kernel: Kernel, refusal: Refusal, generated: Generated) -> None:
        assert kernel.stream is not None
        self.kernels, self.batch, self.views = [kernel], generated.batch, kernel.views
        self.refusal = f"{kernel.space} in blocks on PyTorch's operators: {refusal.reason}"
        settings = generated.settings
        tf32 = settings.precision in ROUNDED  # operands are rounded: their products are exact
        executor = partial(AtenExecutor, streams=False, tf32=tf32)
        elements = BLOCK if settings.interpreted else LARGE_BLOCK
        self.passing = Passing(kernel.stream, executor, elements)
        self.use = Use([*kernel.reads, *kernel.writes], {}, working=self._working)

    def _working(self, batch: int) -> int:
        """Returns the bytes of blocks, and of what they give before it is written."""
        context = Context(batch, torch.float32, META)
        dtypes = {"int": torch.int64, "float": torch.float32}
        operands = [
            torch.empty(concrete(x.shape, batch), dtype=dtypes[x.type.kind], device=META)
            for x in self.passing.stream.reads
        ]
        with Allocations() as found:
            self.passing(context, *operands)
        return found.peak

    def run(self, context: Context, memory: Memory) -> None:
        """Runs the blocks, and writes what they give where it belongs."""
        context = context._replace(dtype=torch.float32)
        operands = [self._operand(context, memory, view) for view in self.views]
        results = self.passing(context, *operands)
        for node, value in zip(self.passing.stream.writes, results, strict=True):
            memory(node).view(value.shape).copy_(value)

    def _operand(self, context: Context, memory: Memory, view: View) -> Tensor:
        """Returns an operand as operators take it."""
        sizes, strides, offset = view.layout(self.batch)
        if view.of.op is Op.CONST:
            number = scalar.evaluate(view.of["value"], self.batch)
            return torch.full((), number, device=context.device).expand(sizes)
        found = memory(view.of)
        found = found.as_strided(sizes, strides, found.storage_offset() + offset)
        return found.to(torch.int64 if view.of.type.kind == "int" else torch.float32)


KINDS: dict[type, Callable[[LaunchCode, ModuleType, Generated], Launch]] = {
    ContractionTiling: ContractionLaunch,
    PatchTiling: PatchGramLaunch,
    RowTiling: ScatterLaunch,
}


def make_launch(slots: LaunchCode, module: ModuleType, generated: Generated) -> Launch:
    """Returns the launch of kernels whose slots have been generated.

    Args:
        slots: the generated code.
        module: the same, loaded.
        generated: what it was made for.
    """
    kernel = slots.kernels[0]
    if not kernel.anchors:
        return PointwiseLaunch(slots, module, generated)
    if kernel in generated.passes:
        found = generated.passes[kernel]
        if isinstance(found, Refusal):
            return BlocksLaunch(kernel, found, generated)
        return PassLaunch(kernel, found, generated)
    if kernel.way.by_vendor:
        return VendorLaunch(slots, module, generated)
    return KINDS[type(generated.tilings[kernel])](slots, module, generated)


def _title(kernel: Kernel) -> str:
    """Returns what a kernel computes: its space, and its first op."""
    return f"{kernel.space} {(*kernel.nodes, *kernel.partials)[0].op.value}"


def _overwriting(
    kernels: Sequence[Kernel], codes: Sequence[Code], operands: Collection[Node] = ()
) -> Iterator[Overwriting]:
    """Yields for each kernel what it may write over values that nobody beside it reads."""
    readers = Counter(buffer for code in codes for buffer in code.pointers)
    for kernel, code in zip(kernels, codes, strict=True):
        known = code.overwriting
        alone = (x for x in kernel.reads if readers[x] == 1 and x not in operands)
        read = {x: known.read[x] for x in alone if x in known.read}
        yield Overwriting(read, {y: known.written[y] for y in kernel.writes if y in known.written})
