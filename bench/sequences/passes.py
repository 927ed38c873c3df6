"""The kernels of streams on a GPT's programs: compared in float64, and timed beside blocks.

A row is one stream: the largest relative error of what leaves it, milliseconds of its kernels one
by one, and of the same on PyTorch's operators, block by block. Needs a GPU; under
TRITON_INTERPRET=1 the numbers are compared and the times mean nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...compiler.graph.ir import Graph, Node, Op, concrete
from ...compiler.language.losses import CrossEntropyLoss
from ...compiler.lowering.code import Buffer, Part
from ...compiler.lowering.kernel import ALONE
from ...compiler.lowering.precision import with_precision
from ...compiler.lowering.reading import Reading
from ...compiler.passes.passes import PassCode, Refusal, pass_codes
from ...compiler.passes.placing import Place, in_rows, viewed
from ...compiler.passes.space import Tile
from ...compiler.streaming.streams import Stream
from ...runtime.arguments import Parser
from ...runtime.aten.executor import AtenExecutor
from ...runtime.aten.passing import Passing
from ...runtime.backend import Context
from ...runtime.fused import codecache
from ...runtime.fused.chips import chip_of
from ...runtime.fused.compiling import interpreted
from ...runtime.fused.measurements import seconds
from ...runtime.fused.storage import dtype_of
from ...runtime.model.from_torch import from_torch


class Net(torch.nn.Module):
    """Words, one causal attention and a head."""

    def __init__(self, words: int, heads: int, size: int, length: int) -> None:
        super().__init__()
        width = heads * size
        self.heads, self.length = heads, length
        self.words = torch.nn.Embedding(words, width)
        self.project, self.out = torch.nn.Linear(width, 3 * width), torch.nn.Linear(width, width)
        self.head = torch.nn.Linear(width, words)

    def forward(self, x: Tensor) -> Tensor:
        """Returns a score of every word at every position."""
        h = self.words(x)
        parts = self.project(h).view(x.shape[0], self.length, 3, self.heads, -1)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        o = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.head(h + self.out(o.transpose(1, 2).reshape(h.shape)))


def programs(net: Net, precision: str) -> Iterator[Graph]:
    """Yields the programs of a network as kernels compute them."""
    x = torch.zeros(2, net.length, dtype=torch.int64)
    known = from_torch(net, x, CrossEntropyLoss(), backend="aten").programs[True]
    tape = {f"kept {i}": n for i, n in enumerate(known.tape)}
    for program in (
        known.linearize, known.hvp, known.ggnvp, known.quadratic(1), known.factors("kfac", 2),
    ):  # fmt: skip
        graph = program.graph
        outputs = {**graph.outputs, **tape} if program is known.linearize else graph.outputs
        yield with_precision(Graph(program.name, outputs, graph.given), precision)[0]


def feed(leaves: Sequence[Node], batch: int, words: int, device: torch.device) -> Iterator[Tensor]:
    """Yields random data for leaves."""
    for node in leaves:
        shape, name = concrete(node.shape, batch), str(node.attributes.get("name", ""))
        generator = torch.Generator(device).manual_seed(len(name) + sum(map(ord, name)))
        options: dict[str, Any] = {"generator": generator, "device": device}
        if name.startswith("constant:"):  # the order of queries and keys
            yield torch.arange(*shape, device=device, dtype=torch.float64)
        elif node.type.kind == "int":
            yield torch.randint(0, words, shape, **options)
        elif "uniform" in name:
            yield torch.rand(shape, dtype=torch.float64, **options)
        else:
            scale = (2 / shape[-1]) ** 0.5 if node.op is Op.PARAM else 1.0
            yield scale * torch.randn(shape, dtype=torch.float64, **options)


class Run:
    """The kernels of a stream with their memory.

    Args:
        codes: the kernels.
        values: by buffer, what it holds.
        stream: what they compute.
        batch: the batch size.
        device: where.
    """

    def __init__(
        self,
        codes: Sequence[PassCode],
        values: Mapping[Node, Tensor],
        stream: Stream,
        batch: int,
        device: torch.device,
    ) -> None:
        self.memory: dict[Buffer, Tensor] = {}
        self.calls: list[Callable[[], Tensor]] = []
        for code in codes:
            for part, size in code.scratch.items():
                self.memory[part] = torch.full((size,), torch.nan, device=device)
            for buffer in code.buffers:
                if isinstance(buffer, Part) or buffer in self.memory:
                    continue
                value = values[buffer].reshape(-1)
                wide = buffer.type.kind == "int" and buffer.op is Op.INPUT
                made = value.to(torch.int64 if wide else dtype_of(buffer))
                self.memory[buffer] = torch.full_like(made, -7) if buffer in stream.writes else made
            self.calls.append(self._call(code, batch))

    def _call(self, code: PassCode, batch: int) -> Callable[[], Tensor]:
        function = getattr(codecache.module(code.source, {}), code.function)
        given = tuple(self.memory[b] for b in code.buffers)
        options = {"num_warps": code.tile.warps, "num_stages": code.tile.stages}

        def call() -> Tensor:
            function[(code.instances,)](given, batch, **options)
            return given[-1]

        return call


def row(
    stream: Stream,
    reading: Reading,
    values: Mapping[Node, Tensor],
    batch: int,
    precision: str,
    device: torch.device,
    tile: Tile | None,
) -> dict[str, Any]:
    """Returns the line of a stream."""
    views = dict(zip(stream.reads, reading.views[stream], strict=True))

    def place(node: Node) -> Place:
        return viewed(views[node], batch) if node in views else in_rows(node)

    chip, named = chip_of(device), {"program": reading.graph.name, "stream": str(stream)}
    codes = pass_codes(stream, batch, chip.product(precision), chip, place, tile)
    if isinstance(codes, Refusal):
        return {**named, "refused": codes.reason}
    run = Run(codes, values, stream, batch, device)
    with np.errstate(all="ignore"):
        for call in run.calls:
            call()
    errors = {}
    for node in stream.writes:
        got, want = run.memory[node].double(), values[node].reshape(-1).double()
        error = float((got - want).norm() / want.norm())
        errors[node.op.value] = max(error, errors.get(node.op.value, 0.0))
    times = {}
    if not interpreted():
        times = {
            f"{i} {c.function} {c.tile}": 1e3 * seconds(call, device)
            for i, (c, call) in enumerate(zip(codes, run.calls, strict=True))
        }
        context = Context(batch, torch.float32, device)
        passing = Passing(stream, lambda graph: AtenExecutor(graph, streams=False))
        operands = [_seen(run.memory, values, views[x], batch) for x in stream.reads]
        times["blocks"] = 1e3 * seconds(lambda: passing(context, *operands)[0], device)
    return {**named, "errors": errors, "ms": times}


def _seen(
    memory: Mapping[Buffer, Tensor], values: Mapping[Node, Tensor], view: Any, batch: int
) -> Tensor:
    value = memory.get(view.of, values[view.of])
    value = value if view.of.type.kind == "int" else value.float()
    sizes, strides, offset = view.layout(batch)
    return value.reshape(-1).as_strided(sizes, strides, offset)


def rows(
    graph: Graph, batch: int, words: int, precision: str, device: torch.device, tile: Tile | None
) -> Iterator[dict[str, Any]]:
    """Yields the lines of a program."""
    reading = Reading(graph, batch, lambda *_: ALONE)
    streams = list(dict.fromkeys(reading.stream_of.values()))
    needed = [n for s in streams for n in (*(v.of for v in reading.views[s]), *s.writes)]
    whole = Graph("all", {str(i): n for i, n in enumerate(dict.fromkeys(needed))})
    run = AtenExecutor(whole, streams=False)
    leaves = [n for n in run.leaves if n.op is not Op.CONST]
    given = dict(zip(leaves, feed(leaves, batch, words, device), strict=True))
    values = run(Context(batch, torch.float64, device), given)
    for stream in streams:
        yield row(stream, reading, values, batch, precision, device, tile)


def main() -> None:
    """Prints a line for each stream."""
    parser = Parser(description=__doc__)
    for name, default in (
        ("batch", 4), ("length", 1024), ("heads", 12), ("size", 64), ("words", 50257),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--precisions", nargs="+", default=["tf32", "bf16", "ieee"])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--tile", type=int, nargs=4, help="own, other, warps, stages")
    parser.add_argument("--programs", nargs="+", default=[""])
    a = parser.parse_args()
    device = torch.device("cpu" if interpreted() else "cuda")
    tile = Tile(*a.tile) if a.tile else None
    net, found = Net(a.words, a.heads, a.size, a.length), []
    with nullcontext() if interpreted() else torch.cuda.device(device):
        for precision in a.precisions:
            for graph in programs(net, precision):
                if not graph.name.startswith(tuple(a.programs)):
                    continue
                for line in rows(graph, a.batch, a.words, precision, device, tile):
                    found.append({"precision": precision, **line})
                    print(json.dumps(found[-1]), flush=True)
                if not interpreted():
                    torch.cuda.empty_cache()
    if a.json:
        a.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
