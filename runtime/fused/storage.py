"""Where every value of a plan lies: given from outside, a result, or in an arena of the plan's own.

The arena holds what launches tell each other. A block of it serves several values in turn, by their
lifetimes, and a value may be written over one that nobody reads afterwards.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from ...compiler.graph.errors import NewtritonError
from ...compiler.graph.ir import Graph, N, Node, Op, Type, batch_axis
from ...compiler.graph.memory import Arena, Lifetime, arena, shared
from ...compiler.lowering.code import Buffer, Overwriting, Part
from ...compiler.lowering.kernel import is_wide
from ...compiler.lowering.precision import is_rounded

Spans = Mapping[Buffer, tuple[int, int]]
Count = Callable[[int], int]  # what kernels count, by the batch size
LIMIT = 1 << 31  # kernels count in 32 bits: 64 would cost registers in loops that have none left


def dtype_of(buffer: Buffer) -> torch.dtype:
    """Returns the type as which the elements of a buffer are stored."""
    whole = buffer.type.kind == "int" if isinstance(buffer, Node) else buffer.integers is not None
    if whole:
        return torch.int32
    half = isinstance(buffer, Node) and is_rounded(buffer) and buffer["expr"].op == "bf16"
    return torch.bfloat16 if half else torch.float32


def pointer_type(buffer: Buffer) -> str:
    """Returns the Triton type of a pointer to a buffer; given labels have 64 bits."""
    if isinstance(buffer, Node) and is_wide(buffer):
        return "*i64"
    return {torch.float32: "*fp32", torch.int32: "*i32", torch.bfloat16: "*bf16"}[dtype_of(buffer)]


@dataclass(frozen=True)
class Use:
    """What a launch does with memory.

    Attributes:
        buffers: all that it reads or writes.
        scratch: the number of elements of the memory between kernels that it writes.
        overwriting: by kernel, which values may be written over which.
        elsewhere: what it makes in memory of its own.
        working: the bytes that operators work in at a batch size, while it runs.
    """

    buffers: Sequence[Buffer]
    scratch: Mapping[Part, int]
    overwriting: Sequence[Overwriting] = ()
    elsewhere: Collection[Part] = ()
    working: Count = lambda batch: 0

    def at(self, ratio: float) -> Use:
        """Returns what a launch on so many times as many samples does, in proportion."""
        scratch = {part: math.ceil(size * ratio) for part, size in self.scratch.items()}
        return replace(self, scratch=scratch)


@dataclass(frozen=True)
class Storage:
    """Where every value of a plan lies.

    Attributes:
        batch: the batch size.
        scratch: the number of elements of the memory between kernels.
        given: the values that come from outside.
        results: the values that are returned.
        addressed: what launches use of both, in their order: it lies elsewhere in every call.
        lifetimes: of all other buffers, their bytes, and the launches between which they live.
        block: by value, the one that it is written over; the first of a row of them.
        arena: the offsets of the others.
    """

    batch: int
    scratch: Mapping[Part, int]
    given: Collection[Buffer]
    results: Collection[Buffer]
    addressed: Sequence[Buffer]
    lifetimes: Mapping[Buffer, Lifetime]
    block: Mapping[Buffer, Buffer]
    arena: Arena[Buffer]

    def size(self, buffer: Buffer) -> int:
        """Returns the number of elements of a buffer."""
        return numel(buffer, self.batch, self.scratch)

    def offset(self, buffer: Buffer) -> int:
        """Returns the first byte of a buffer in the arena."""
        return self.arena.offsets[self.block.get(buffer, buffer)]


def numel(buffer: Buffer, batch: int, scratch: Mapping[Part, int]) -> int:
    """Returns the number of elements of a buffer at a batch size."""
    return buffer.type.numel(batch) if isinstance(buffer, Node) else scratch[buffer]


def check_counts(graph: Graph, batch: int, counts: Sequence[tuple[str, Count]]) -> None:
    """Checks that kernels can count all that they count.

    Args:
        graph: what is computed.
        batch: the batch size.
        counts: what is counted, each with its name; it grows with the batch size.

    Raises:
        NewtritonError: something has 2³¹ elements or more; the error says how many fit.
    """

    def overflows(n: int) -> bool:
        return any(count(n) >= LIMIT for _, count in counts)

    if not overflows(batch):
        return
    name, count = max(counts, key=lambda each: each[1](batch))
    most = bisect_left(range(batch), True, lo=1, key=overflows) - 1
    what, way_out = "batch size", f"give at most {most} samples at once"
    if _is_of_vectors(graph):
        what, way_out = "length", f"use backend='aten' for vectors of more than {most} elements"
    elif most == 0:
        way_out = "use backend='aten', not even a single sample fits"
    raise NewtritonError(
        f"{graph.name}: {name} would have {count(batch)} elements at {what} {batch}, and fused "
        f"kernels count fewer than 2³¹: {way_out}"
    )


def _is_of_vectors(graph: Graph) -> bool:
    """Whether a graph computes with flat vectors, whose length stands for the batch size."""
    outside = [n for n in graph.nodes() if n.op is Op.INPUT or n in graph.given]
    by_length = [n for n in outside if batch_axis(n.shape) is not None]
    return bool(by_length) and all(n.type == Type((N,)) for n in by_length)


def lay_out(
    uses: Sequence[Use], results: Iterable[Node], leaves: Collection[Node], batch: int
) -> Storage:
    """Decides where every value of a plan lies.

    Args:
        uses: what each launch does with memory, in order.
        results: the values that are returned.
        leaves: the values that come from outside.
        batch: the batch size.
    """
    spans, kept = _spans(uses), frozenset(results)
    scratch = {part: size for use in uses for part, size in use.scratch.items()}
    given = frozenset(b for b in {*spans, *kept} if b in leaves)
    outside = given | kept | {part for use in uses for part in use.elsewhere}
    lifetimes = {
        b: Lifetime(numel(b, batch, scratch) * dtype_of(b).itemsize, *span)
        for b, span in spans.items()
        if b not in outside
    }
    blocks, block = shared(lifetimes, _over(uses, lifetimes))
    addressed = [b for b in spans if b in given or b in kept]
    return Storage(batch, scratch, given, kept, addressed, lifetimes, block, arena(blocks))


def _spans(uses: Sequence[Use]) -> dict[Buffer, tuple[int, int]]:
    """Returns of every buffer the launch that writes it and the last one that reads it."""
    spans: dict[Buffer, tuple[int, int]] = {}
    for i, use in enumerate(uses):
        for buffer in use.buffers:
            spans[buffer] = spans.get(buffer, (i, i))[0], i
    return spans


def _over(uses: Sequence[Use], lifetimes: Mapping[Buffer, Lifetime]) -> dict[Buffer, Buffer]:
    """Returns the values that are written over one that nobody reads afterwards, and over which."""
    found: dict[Buffer, Buffer] = {}
    for i, use in enumerate(uses):
        for kernel in use.overwriting:
            free: dict[int, list[Node]] = {}  # by size, what nobody reads afterwards
            for x in kernel.read:
                if x in lifetimes and lifetimes[x].last == i:
                    free.setdefault(lifetimes[x].size, []).append(x)
            for y in kernel.written:
                if y in lifetimes and lifetimes[y].first == i:
                    fitting = free.get(lifetimes[y].size, [])
                    x = next((x for x in fitting if kernel.allows(x, y)), None)
                    if x is not None:
                        fitting.remove(x)
                        found[y] = x
    return found
