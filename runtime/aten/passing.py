"""A stream on PyTorch's operators: a loop over blocks that stay in the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, product

import torch
from torch import Tensor

from ...compiler.graph.ir import Graph, Node, Op, concrete, is_batched
from ...compiler.streaming.blocks import Block, Blocks, Cut, Sink, Sizes
from ...compiler.streaming.hidden import Mask
from ...compiler.streaming.streams import Stream
from ..backend import Context
from ..recent import Recent

BLOCK = 1 << 20  # elements of a wide value's block: a few of them fit the last-level cache
AMPLE = 2  # blocks are so many times as large as what they add to, or adding takes the time
SLABS, SLAB = 4, 256  # into how many slabs rows are cut where columns are hidden, and the least one

Part = Sequence[tuple[int, int]]  # by axis of the stream's shape, where a block begins and its size
Run = Callable[[Context, Mapping[Node, Tensor]], Mapping[Node, Tensor]]


class Passing:
    """Runs a stream block by block.

    Args:
        stream: what to compute.
        executor: returns what runs the graph of a block.
        elements: the elements of a wide value's block.
    """

    def __init__(
        self, stream: Stream, executor: Callable[[Graph], Run], elements: int | None = None
    ) -> None:
        self.stream, self.blocks, self._executor = stream, Blocks(stream), executor
        self.elements = BLOCK if elements is None else elements
        self._made = Recent[Sizes, tuple[Block, Run]]()

    def __call__(self, context: Context, *operands: Tensor) -> list[Tensor]:
        """Returns the tensors of the sinks, from those of what the stream reads."""
        values = dict(zip(self.stream.reads, operands, strict=True))
        totals = [self._new(context, sink) for sink in self.blocks.sinks]
        begun, last = set[tuple[int, Part]](), len(self.stream.shape) - 1
        for part in self.parts(context, values):
            found = self._run(context, values, part)
            for i, (value, sink) in enumerate(zip(found, self.blocks.sinks, strict=True)):
                key = i, tuple(part[by] for by in sink.cut if by not in (None, last))
                if sink.summed and key in begun:
                    cut_out(totals[i], sink.cut, part).add_(value)
                else:
                    self._begin(totals[i], value, sink, part)
                    begun.add(key)
        dtypes = (
            torch.int64 if n.type.kind == "int" else context.dtype for n in self.stream.writes
        )
        return [total.to(dtype) for total, dtype in zip(totals, dtypes, strict=True)]

    @staticmethod
    def _begin(total: Tensor, value: Tensor, sink: Sink, part: Part) -> None:
        """Writes what the first block gives; where it lacks columns, those are 0 so far."""
        target = cut_out(total, sink.cut, part)
        whole = tuple(None if by == len(part) - 1 else by for by in sink.cut)
        if sink.summed and whole != sink.cut:
            cut_out(total, whole, part).zero_()
        target.copy_(value)

    @staticmethod
    def _new(context: Context, sink: Sink) -> Tensor:
        """Returns memory for a sink; sums of many blocks are added up in float64."""
        shape = concrete(sink.of.shape, context.batch)
        if sink.of.type.kind == "int":
            return torch.empty(shape, dtype=torch.int64, device=context.device)
        if sink.summed and sink.of.op is Op.REDUCE_SUM:
            return torch.empty(shape, dtype=torch.float64, device=context.device)
        return context.empty(shape)

    def parts(self, context: Context, values: Mapping[Node, Tensor]) -> Iterator[Part]:
        """Yields where blocks begin, and their sizes; on the meta device those that are largest."""
        summed = (self.blocks.whole(sink.of) for sink in self.blocks.sinks if sink.summed)
        room = max(self.elements, AMPLE * max(summed, default=0)) // self.blocks.elements
        *lead, rows, columns = concrete(self.stream.shape, context.batch)
        mask = self.blocks.mask if context.device.type == "cpu" else None  # a GPU is not waited for
        most = rows if mask is None else max(SLAB, -(-rows // SLABS))
        down = _pieces(rows, min(room, most))
        seen = [(0, columns)] * len(down) if mask is None else _seen(mask, values, down)
        axes: list[list[Part]] = [list(zip(down, seen, strict=True))]
        room //= down[0][1]
        for size in lead[::-1]:
            pieces = _pieces(size, room)
            room = room // size if len(pieces) == 1 else 0
            axes.append([(piece,) for piece in pieces])
        parts = [tuple(chain(*at)) for at in product(*axes[::-1])]
        yield from parts if context.device.type != "meta" else [*parts[:2], *parts[-1:]]

    def _run(self, context: Context, values: Mapping[Node, Tensor], part: Part) -> Sequence[Tensor]:
        """Returns what a block gives of each sink."""
        shape, sizes = self.stream.shape, tuple(size for _, size in part)
        samples = next((n for d, n in zip(shape, sizes, strict=True) if is_batched(d)), 1)
        key = tuple(1 if is_batched(d) else n for d, n in zip(shape, sizes, strict=True))
        block, run = self._made.made(key, lambda: self._block(key))
        feed: dict[Node, Tensor] = {}
        for leaf, read in block.leaves.items():
            if read.of not in values:  # the batch size, of the whole
                value = torch.full((), context.batch, dtype=context.dtype, device=context.device)
            else:
                value = values[read.of]
            feed[leaf] = cut_out(value, read.cut, part)
        found = run(context._replace(batch=samples), feed)
        return [found[n] for n in block.graph.outputs.values()]

    def _block(self, sizes: Sizes) -> tuple[Block, Run]:
        block = self.blocks.block(sizes)
        return block, self._executor(block.graph)


def _pieces(size: int, most: int) -> list[tuple[int, int]]:
    """Returns where pieces of an axis begin, and their sizes, as equal as they can be."""
    taken = -(-size // -(-size // max(1, min(size, most))))
    return [(at, min(taken, size - at)) for at in range(0, size, taken)]


def _seen(mask: Mask, values: Mapping[Node, Tensor], down: Part) -> list[tuple[int, int]]:
    """Returns the columns up to the last one that some row of a piece sees, at least one."""
    rows = mask.of_row * values[mask.rows].double() + mask.constant
    columns = mask.of_column * values[mask.columns].double()
    found = []
    for at, size in down:
        (visible,) = torch.where(rows[at : at + size].min() + columns <= 0)
        found.append((0, int(visible[-1]) + 1 if len(visible) else 1))
    return found


def cut_out(x: Tensor, cut: Cut, part: Part) -> Tensor:
    """Returns a block's part of a tensor."""
    for axis, by in enumerate(cut):
        if by is not None:
            x = x.narrow(axis, *part[by])
    return x
