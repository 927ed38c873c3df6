"""Runs the generated kernels of streams in the interpreter, against the same graph in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from newtriton.compiler.graph.ir import Graph, Node, Op, concrete
from newtriton.compiler.lowering.code import Buffer, Part
from newtriton.compiler.lowering.kernel import ALONE
from newtriton.compiler.lowering.precision import with_precision
from newtriton.compiler.lowering.reading import Reading
from newtriton.compiler.passes.passes import PassCode, Refusal, pass_codes
from newtriton.compiler.passes.placing import Place, Places, in_rows, viewed
from newtriton.compiler.passes.space import Tile
from newtriton.compiler.streaming.streams import Stream
from newtriton.runtime.aten.executor import AtenExecutor
from newtriton.runtime.backend import Context
from newtriton.runtime.fused import codecache
from newtriton.runtime.fused.chips import CHIPS

Values = Mapping[Node, Tensor]
Feed = Callable[[Node, tuple[int, ...]], Tensor]


def random(classes: int) -> Feed:
    """Returns what gives leaves random data; labels are below `classes`."""
    generator = torch.Generator().manual_seed(0)

    def feed(node: Node, shape: tuple[int, ...]) -> Tensor:
        name = str(node.attributes.get("name"))
        if name.startswith("constant:"):  # the order of queries and keys
            return torch.arange(*shape, dtype=torch.float64)
        if node.type.kind == "int":
            return torch.randint(0, classes, shape, generator=generator)
        if "uniform" in name:
            return torch.rand(shape, generator=generator, dtype=torch.float64)
        scale = math.sqrt(2 / shape[-1]) if node.op is Op.PARAM else 1.0
        return scale * torch.randn(shape, generator=generator, dtype=torch.float64)

    return feed


def computed(nodes: Sequence[Node], batch: int, feed: Feed) -> Values:
    """Returns values of a graph in float64, none of them in passing."""
    graph = Graph("all", {str(i): n for i, n in enumerate(dict.fromkeys(nodes))})
    run = AtenExecutor(graph, streams=False)
    leaves = [n for n in run.leaves if n.op is not Op.CONST]
    given = {n: feed(n, concrete(n.shape, batch)) for n in leaves}
    found = run(Context(batch, torch.float64, torch.device("cpu")), given)
    return {**given, **found}


class Program:
    """A graph with its streams, and all that they read and write.

    Args:
        graph: the graph.
        batch: the batch size.
        feed: gives leaves their data.
        precision: the precision of products.
    """

    def __init__(self, graph: Graph, batch: int, feed: Feed, precision: str = "ieee") -> None:
        self.batch, self.precision = batch, precision
        self.reading = Reading(with_precision(graph, precision)[0], batch, lambda *_: ALONE)
        self.streams = list(dict.fromkeys(self.reading.stream_of.values()))
        self.totals = [n for s in self.streams for n in s.writes if not n.shape]
        needed = [view.of for s in self.streams for view in self.reading.views[s]]
        needed += [n for s in self.streams for n in s.writes]
        needed += [x for n in self.totals for x in n.inputs]
        self.values = computed(needed, batch, feed)

    def scale(self, node: Node) -> float:
        """Returns the norm of a value; of a sum over all that of its terms, which may cancel."""
        if node in self.totals:
            return float(self.values[node.inputs[0]].abs().sum())
        return float(self.values[node].double().norm())

    def places(self, stream: Stream) -> Places:
        """Returns where the values of a stream lie."""
        views = dict(zip(stream.reads, self.reading.views[stream], strict=True))

        def place(node: Node) -> Place:
            return viewed(views[node], self.batch) if node in views else in_rows(node)

        return place

    def codes(self, stream: Stream, tile: Tile | None = None) -> Sequence[PassCode] | Refusal:
        """Returns the kernels of a stream."""
        chip = CHIPS["sm_90"]
        return pass_codes(stream, self.batch, self.precision, chip, self.places(stream), tile)

    def run(self, stream: Stream, tile: Tile | None = None) -> Values:
        """Returns what the kernels of a stream write, into memory of NaN."""
        codes = self.codes(stream, tile)
        assert not isinstance(codes, Refusal), codes.reason
        memory: dict[Buffer, Tensor] = {}
        for code in codes:
            memory |= {part: torch.full((n,), torch.nan) for part, n in code.scratch.items()}
            for buffer in code.buffers:
                if buffer not in memory:
                    memory[buffer] = self._memory(buffer, stream)
            launch(code, [memory[b] for b in code.buffers], self.batch)
        return {n: memory[n].view(concrete(n.shape, self.batch)) for n in stream.writes}

    def _memory(self, buffer: Buffer, stream: Stream) -> Tensor:
        assert not isinstance(buffer, Part), "parts are added up after they are written"
        value = self.values[buffer].reshape(-1)
        whole = torch.int64 if buffer.op is Op.INPUT else torch.int32
        value = value.to(torch.float32 if buffer.type.kind == "float" else whole)
        if buffer not in stream.writes:
            return value.contiguous()
        return torch.full_like(value, torch.nan if buffer.type.kind == "float" else -7)


def launch(code: PassCode, memory: Sequence[Tensor], batch: int) -> None:
    """Runs a kernel."""
    function = getattr(codecache.module(code.source, {}), code.function)
    with np.errstate(all="ignore"):  # of elements that are masked, as on a GPU
        function[(code.instances,)](tuple(memory), batch)
