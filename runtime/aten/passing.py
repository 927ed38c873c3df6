"""A stream on PyTorch's operators: a loop over blocks that stay in the cache."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...compiler.graph.ir import Graph, Node, Op, concrete
from ...compiler.streaming.blocks import ROWS, SAMPLES, Block, Blocks, Cut
from ...compiler.streaming.streams import Stream
from ..backend import Context
from ..recent import Recent

BLOCK = 1 << 20  # elements of a wide value's block: a few of them fit the last-level cache

Part = Mapping[str, tuple[int, int]]  # by what values are cut, where a block begins and its size
Run = Callable[[Context, Mapping[Node, Tensor]], Mapping[Node, Tensor]]


class Passing:
    """Runs a stream block by block.

    Args:
        stream: what to compute.
        executor: returns what runs the graph of a block.
    """

    def __init__(self, stream: Stream, executor: Callable[[Graph], Run]) -> None:
        self.stream, self.blocks, self._executor = stream, Blocks(stream), executor
        self._made = Recent[int, tuple[Block, Run]]()

    def __call__(self, context: Context, *operands: Tensor) -> list[Tensor]:
        """Returns the tensors of the sinks, from those of what the stream reads."""
        values = dict(zip(self.stream.reads, operands, strict=True))
        totals = [self._new(context, n, summed) for n, _, summed in self._sinks()]
        seen: set[tuple[int, object]] = set()
        for part in self.parts(context.batch, thoroughly=context.device.type != "meta"):
            found = self._run(context, values, part)
            for i, (total, value, (_, cut, summed)) in enumerate(
                zip(totals, found, self._sinks(), strict=True)
            ):
                target = cut_out(total, cut, part)
                where = (i, tuple(part[by] for by in cut if by is not None))
                if summed and where in seen:
                    target.add_(value)
                else:
                    target.copy_(value)
                seen.add(where)
        dtypes = (torch.int64 if n.type.kind == "int" else context.dtype for n in self.stream.writes)
        return [total.to(dtype) for total, dtype in zip(totals, dtypes, strict=True)]

    def _sinks(self) -> Iterator[tuple[Node, Cut, bool]]:
        return ((s.of, s.cut, s.summed) for s in self.blocks.sinks)

    @staticmethod
    def _new(context: Context, node: Node, summed: bool) -> Tensor:
        """Returns memory for a sink; sums of many blocks are added up in float64."""
        shape = concrete(node.shape, context.batch)
        if node.type.kind == "int":
            return torch.empty(shape, dtype=torch.int64, device=context.device)
        if summed and node.op is Op.REDUCE_SUM:
            return torch.empty(shape, dtype=torch.float64, device=context.device)
        return context.empty(shape)

    def parts(self, batch: int, thoroughly: bool = True) -> Iterator[Part]:
        """Yields where blocks begin and end.

        Args:
            batch: the batch size.
            thoroughly: whether all of them are wanted, not only as many as memory shows in.
        """
        shape, cut = concrete(self.stream.shape, batch), self.blocks.cut
        samples = math.prod(d for d, by in zip(shape, cut, strict=True) if by == SAMPLES)
        rows = math.prod(d for d, by in zip(shape, cut, strict=True) if by == ROWS)
        least = max((self._kept(n) for n, _, summed in self._sinks() if summed), default=0)
        size = max(BLOCK, least)
        down = min(rows, max(1, size // self.blocks.elements))
        down = -(-rows // -(-rows // down))
        across = max(1, size // (self.blocks.elements * rows)) if down == rows else 1
        starts = [(s, r) for s in range(0, samples, across) for r in range(0, rows, down)]
        for s, r in starts if thoroughly else [*starts[:2], *starts[-1:]]:
            yield {SAMPLES: (s, min(across, samples - s)), ROWS: (r, min(down, rows - r))}

    def _kept(self, node: Node) -> int:
        """Returns the elements of a sum for a sample: blocks are no smaller, or adding takes all."""
        cut = next(c for n, c, _ in self._sinks() if n is node)
        return math.prod(d for d, by in zip(node.shape, cut, strict=True) if by is None)

    def _run(
        self, context: Context, values: Mapping[Node, Tensor], part: Part
    ) -> Sequence[Tensor]:
        """Returns what a block gives of each sink."""
        rows, samples = part[ROWS][1], part[SAMPLES][1]
        block, run = self._made.made(rows, lambda: self._block(rows))
        feed: dict[Node, Tensor] = {}
        for leaf, read in block.leaves.items():
            if read.of not in values:  # the batch size, of the whole
                value = torch.full((), context.batch, dtype=context.dtype, device=context.device)
            else:
                value = values[read.of]
            feed[leaf] = cut_out(value, read.cut, part)
        found = run(context._replace(batch=samples), feed)
        return [found[n] for n in block.graph.outputs.values()]

    def _block(self, rows: int) -> tuple[Block, Run]:
        block = self.blocks.block(rows)
        return block, self._executor(block.graph)


def cut_out(x: Tensor, cut: Cut, part: Part) -> Tensor:
    """Returns a block's part of a tensor."""
    for axis, by in enumerate(cut):
        if by is not None:
            x = x.narrow(axis, *part[by])
    return x
