"""The kinds of launch: pointwise kernels, a contraction, a patch Gram, the vendor's contraction.

A launch is made once per plan, of what the code generator has written, and run in every call. To
add a kind: a class here, and its entry in `KINDS`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

import torch
from torch import Tensor

from ...compiler.graph import ops, scalar
from ...compiler.graph.ir import Node, Op, concrete
from ...compiler.lowering.code import Buffer, Code, Overwriting, Part, Tile
from ...compiler.lowering.codegen import LaunchCode
from ...compiler.lowering.kernel import Kernel, Schedule, base
from ...compiler.lowering.precision import ROUNDED
from ...kernels.lags import assemble, rectangle_products
from ..aten.rules import ATEN
from ..aten.switches import switches
from ..backend import Context
from .compiling import Job
from .settings import Settings
from .storage import Use, pointer_type
from .tiles import ContractionTiling, PatchTiling, Tiling

Memory = Callable[[Buffer], Tensor]


class Launch(Protocol):
    """Kernels that are launched together.

    Attributes:
        kernels: the kernels of the schedule that it computes.
        use: what it does with memory.
    """

    kernels: Sequence[Kernel]
    use: Use

    def run(self, context: Context, tensor: Memory) -> None:
        """Launches the kernels.

        Args:
            context: batch size, dtype and device of the call.
            tensor: where a buffer lies in this call.
        """
        ...

    def jobs(self, name: str) -> Iterator[Job]:
        """Yields every kernel as it will be launched, to compile ahead of time.

        Args:
            name: the beginning of their names.
        """
        ...


@dataclass(frozen=True)
class Generated:
    """A schedule with its tiles and its code: what launches are made of.

    Attributes:
        schedule: the kernels.
        batch: the batch size.
        settings: how kernels are generated.
        tilings: how contractions are tiled, unless the vendor's library computes them.
        tiles: what the slots of each kernel see at once.
        module: the generated functions.
    """

    schedule: Schedule
    batch: int
    settings: Settings
    tilings: Mapping[Kernel, Tiling]
    tiles: Mapping[Kernel, Tile]
    module: ModuleType

    def operands(self, kernel: Kernel) -> list[Sequence[Node]]:
        """Returns what each contraction of a kernel reads."""
        return [self.schedule.operands[anchor] for anchor in kernel.anchors]

    def functions(self, names: Sequence[str | None]) -> tuple[Any, ...]:
        """Returns generated functions by name, None where there is no name."""
        return tuple(name and getattr(self.module, name) for name in names)

    def sums(self, kernel: Kernel) -> dict[Part, int]:
        """Returns the number of elements of the sums that the tiles of a kernel write."""
        tile, space = self.tiles[kernel], kernel.space
        rows = -(-math.prod(concrete(space.rows, self.batch)) // tile.rows)
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


class PointwiseLaunch:
    """Kernels without contractions: instances 0 … e0 work on the first, up to e1 on the second."""

    def __init__(self, slots: LaunchCode, generated: Generated) -> None:
        assert slots.function is not None
        self.kernels, self.codes, self.batch = slots.kernels, slots.codes, generated.batch
        self.function = getattr(generated.module, slots.function)
        self.wide = generated.wide(slots.kernels, slots.codes)
        self.options = generated.settings.target.limits if generated.settings.target else {}
        counts = []
        for kernel in slots.kernels:
            tile = generated.tiles[kernel]
            rows = math.prod(concrete(kernel.space.rows, generated.batch))
            counts.append(-(-rows // tile.rows) * tile.strips)
        self.instances = sum(counts)
        self.ends = [sum(counts[: q + 1]) for q in range(len(counts) - 1)]
        self.use = Use(
            [buffer for code in slots.codes for buffer in code.pointers],
            {part: size for k in slots.kernels for part, size in generated.sums(k).items()},
            list(_overwriting(slots.kernels, slots.codes)),
        )

    def run(self, context: Context, tensor: Memory) -> None:
        """Launches all kernels as one."""
        pointers = [tuple(map(tensor, code.pointers)) for code in self.codes]
        self.function[(self.instances,)](*pointers, *self.ends, self.batch, **self.options)

    def jobs(self, name: str) -> Iterator[Job]:
        """Yields the one kernel."""
        types: dict[str, Any] = dict.fromkeys(self.function.arg_names, "i32")
        for q, code in enumerate(self.codes):
            types[f"p{q}"] = tuple(map(pointer_type, code.pointers))
        title = _title(name, self.kernels[0])
        yield Job(title, "pointwise", self.function, types, self.options, wide=self.wide)


class ContractionLaunch:
    """A sum of contractions on one accumulator, which slots take from there."""

    def __init__(self, slots: LaunchCode, generated: Generated) -> None:
        (kernel,), (code,) = slots.kernels, slots.codes
        tiling = generated.tilings[kernel]
        assert isinstance(tiling, ContractionTiling)
        self.kernels, self.tiling, self.batch = slots.kernels, tiling, generated.batch
        self.precision, self.unit = generated.settings.precision, generated.unit
        self.wide = generated.wide(slots.kernels, slots.codes)
        together = tiling.constants.get("TOGETHER", False)
        ratios = [None] * len(code.ratios) if together else code.ratios
        self.constants = {
            **tiling.constants,
            "STAGES": generated.functions(code.stages),
            "RATIOS": generated.functions(ratios),
        }
        operands = generated.operands(kernel)
        self.first = [both[0] for both in operands]
        self.second = [both[:2][-1] for both in operands]  # of a Gram, the first again
        self.pointers = code.pointers
        read = [x for both in operands for x in both]
        parts = {
            Part(a): kernel.way.splits * a.type.numel(generated.batch)
            for a in kernel.anchors
            if kernel.way.apart
        }
        overwriting = list(_overwriting(slots.kernels, slots.codes, set(read)))
        self.use = Use([*code.pointers, *read], parts | generated.sums(kernel), overwriting)

    def run(self, context: Context, tensor: Memory) -> None:
        """Launches the skeleton with its slots."""
        self.tiling.skeleton[(self.tiling.instances,)](
            tuple(map(tensor, self.first)),
            tuple(map(tensor, self.second)),
            tuple(map(tensor, self.pointers)),
            self.batch,
            self.tiling.rows,
            self.tiling.trips,
            **self.constants,
        )

    def jobs(self, name: str) -> Iterator[Job]:
        """Yields the one kernel."""
        skeleton, constants = self.tiling.skeleton, dict(self.constants)
        warps, stages = constants.pop("num_warps"), constants.pop("num_stages")
        first, second = skeleton.arg_names[:2]
        types = {
            **dict.fromkeys(skeleton.arg_names, "i32"),
            first: tuple(map(pointer_type, self.first)),
            second: tuple(map(pointer_type, self.second)),
            "p": tuple(map(pointer_type, self.pointers)),
        }
        copied = [constants["C"], constants.get("OC", constants.get("COLUMNS"))]
        yield Job(
            _title(name, self.kernels[0]), skeleton.__name__, skeleton, types, constants,
            self.precision if constants["PREC"] == "tf32" else constants["PREC"], warps, stages,
            flat=constants.get("FLAT", constants["C"] < 16),
            narrow=min(copied) < 64 or any(c % self.unit for c in copied),
            tile=(constants["BM"], constants["BN"], constants["BK"]), wide=self.wide,
            products=3 if constants.get("TOGETHER") else 1,
        )  # fmt: skip


class PatchGramLaunch:
    """A patch Gram: products of rectangles, then the blocks that they sum to."""

    def __init__(self, slots: LaunchCode, generated: Generated) -> None:
        (kernel,) = slots.kernels
        tiling = generated.tilings[kernel]
        assert isinstance(tiling, PatchTiling)
        self.kernels, self.tiling, self.batch = slots.kernels, tiling, generated.batch
        ((self.image,),), (self.node,) = generated.operands(kernel), kernel.anchors
        self.scale = scalar.evaluate(self.node["scale"], generated.batch)
        self.patches = float(generated.batch * tiling.shapes.patches)
        self.tables: tuple[Tensor, ...] | None = None  # where the images are, from the first call
        products = Part(self.node)
        self.use = Use([self.image, products, *kernel.writes], {products: tiling.scratch})

    def run(self, context: Context, tensor: Memory) -> None:
        """Launches both kernels."""
        if self.tables is None:
            self.tables = tuple(t.to(context.device) for t in self.tiling.shapes.tables)
        items, pairs, terms = self.tables
        products = tensor(Part(self.node))
        rectangle_products[(self.tiling.instances,)](
            tensor(self.image), items, products, self.batch, **self.tiling.constants
        )
        assemble[(self.tiling.assembly_instances,)](
            products, pairs, terms, tensor(self.node), self.scale, self.patches,
            **self.tiling.assembly,
        )  # fmt: skip

    def jobs(self, name: str) -> Iterator[Job]:
        """Yields both kernels."""
        title, constants = _title(name, self.kernels[0]), dict(self.tiling.constants)
        precision, warps = constants["PREC"], constants.pop("num_warps")
        stages = constants.pop("num_stages")
        types = {n: "*i32" for n in ("items", "pairs", "terms")}
        types |= {n: "*fp32" for n in ("a", "products", "out")}
        types |= {"scale": "fp32", "patches": "fp32", "batch": "i32"}
        tile = (constants["BM"], constants["BN"], constants["BK"])
        yield Job(
            f"{title} products", "outer", rectangle_products, types, constants, precision, warps,
            stages, flat=constants["C"] < 16, tile=tile,
        )  # fmt: skip
        yield Job(f"{title} assembly", "pointwise", assemble, types, self.tiling.assembly)


class VendorLaunch:
    """A contraction by PyTorch's operator, without bias and scale: another kernel adds them.

    Rounded operands are multiplied as float32: their products are exact in tf32 too.
    """

    def __init__(self, slots: LaunchCode, generated: Generated) -> None:
        (kernel,) = slots.kernels
        (self.node,) = kernel.anchors
        self.kernels, self.batch = slots.kernels, generated.batch
        self.rounded = generated.settings.precision in ROUNDED and self.node.op is not Op.SPECTRAL
        scale = {"scale": scalar.ONE} if "scale" in self.node.attributes else {}
        self.plain = ops.make(
            self.node.op, *self.node.inputs[:2], **{**self.node.attributes, **scale}
        )
        self.operator = ATEN[self.plain.op](self.plain)
        (read,), part = generated.operands(kernel), Part(self.node)
        self.use = Use([*read, part], {part: self.node.type.numel(generated.batch)})

    def run(self, context: Context, tensor: Memory) -> None:
        """Calls the operator, and copies its result to where the next kernel reads it."""
        operands = [
            tensor(base(x)).view(concrete(x.shape, self.batch)).to(torch.float32)
            for x in self.plain.inputs
        ]
        with switches(context.device, self.rounded):
            result = self.operator(context, *operands)
        tensor(Part(self.node)).copy_(result.reshape(-1))

    def jobs(self, name: str) -> Iterator[Job]:
        """Yields nothing: the vendor's kernels are compiled."""
        yield from ()


KINDS: dict[type, Callable[[LaunchCode, Generated], Launch]] = {
    ContractionTiling: ContractionLaunch,
    PatchTiling: PatchGramLaunch,
}


def make_launch(slots: LaunchCode, generated: Generated) -> Launch:
    """Returns the launch of kernels whose slots have been generated."""
    kernel = slots.kernels[0]
    if not kernel.anchors:
        return PointwiseLaunch(slots, generated)
    if kernel.way.by_vendor:
        return VendorLaunch(slots, generated)
    return KINDS[type(generated.tilings[kernel])](slots, generated)


def _title(name: str, kernel: Kernel) -> str:
    """Returns the name of a job: its space, and the first op that it computes."""
    return f"{name} {kernel.space} {(*kernel.nodes, *kernel.partials)[0].op.value}"


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
