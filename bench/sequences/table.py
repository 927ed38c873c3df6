"""Launches, bytes and memory of second-order passes, counted: nothing is run at full size.

Ours are counted in the plans of fused kernels, and on PyTorch's operators by running them on
tensors without memory; eager PyTorch, with the attention that alone has two derivatives, likewise.
"One by one" are the operators of our graphs, each reading from and writing to memory of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch

import newtriton as nt

from ...compiler.graph.cost import peak, traffic
from ...compiler.graph.ir import Graph, Node
from ...compiler.graph.program import Program
from ...compiler.lowering.precision import two_products
from ...compiler.programs import Programs
from ...runtime.aten.executor import AtenBackend
from ...runtime.backend import Backend
from ...runtime.fused.backend import TritonBackend
from ...runtime.fused.settings import Settings
from ...runtime.model.runner import NOTHING, Runner
from .. import second_order
from .._measure import CPU
from .._modules import ViT
from ..second_order import Network, gpt, images
from .counting import Moved

POSITIONS = 256, 512, 1024, 2048
PRECISIONS = "ieee", "tf32", "bf16"
RIVALS = {"gradient": "gradient", "gradient + quadratic form": "hvp", "gradient + hvp": "hvp"}
FLOAT = 4  # bytes

Rows = list[dict[str, Any]]


def base_gpt(positions: int) -> Network:
    """Returns a GPT of 12 layers with GPT-2's widths and words."""
    return gpt(12, 768, positions, 50_257, batch=8)


def base_vit() -> Network:
    """Returns a ViT of 12 layers on images of 224×224 in patches of 16×16."""
    net = partial(ViT, 12, 768, size=224, patch=16, heads=12, classes=1000)
    return Network(net, partial(images, size=224, classes=1000), batch=8)


def counted(name: str, network: Network) -> Rows:
    """Returns a row for each call, of PyTorch and of ours on each backend."""
    theirs = {what: _eager(network, what) for what in ("gradient", "hvp")}
    found = [{"by": "eager", "call": what, **row} for what, row in theirs.items()]
    for row in _ours(network):
        rival = theirs[RIVALS[row["call"]]]
        of_eager = {f"{n}_of_eager": round(row[n] / rival[n], 3) for n in rival if n in row}
        found.append(row | of_eager)
    return [{"net": name, "batch": network.batch, **row} for row in found]


def _eager(network: Network, call: str) -> dict[str, float]:
    """Returns what a call of eager PyTorch moves and holds."""
    with torch.device("meta"):
        net, (x, y) = network.module(), network.data(network.batch)
    made = second_order.eager(net, x, y, [torch.empty_like(p) for p in net.parameters()])[call]
    with Moved() as found:
        kept = second_order.with_math(made)
    del kept
    return {"MB_moved": _mb(found.moved), "peak_MB": _mb(found.held)}


def _ours(network: Network) -> Iterator[dict[str, Any]]:
    """Yields what our calls take, on each backend."""
    net, (x, _) = network.module(), network.data(2)
    model = nt.from_torch(net, x, nt.CrossEntropyLoss(), backend="aten", device="cpu")
    known = model.programs[True]
    backends: dict[str, Backend] = {
        precision: TritonBackend(Settings(precision, "fused"), CPU) for precision in PRECISIONS
    }
    for call, programs in _calls(known, two=True).items():
        yield {"by": "one by one", "call": call, **_one_by_one(known, programs, network.batch)}
    for name, backend in {"aten": AtenBackend(CPU), **backends}.items():
        runner = Runner(backend, torch.float32, model.ranks, model.layout, model.params)
        for call, programs in _calls(known, two_products(backend.precision)).items():
            yield {"by": name, "call": call, **_planned(runner, known, programs, network.batch)}


def _calls(known: Programs, two: bool) -> dict[str, list[Program]]:
    """Returns the programs that each call runs, one after another."""
    first = known.linearize
    return {
        "gradient": [first],
        "gradient + quadratic form": [first, known.quadratic(1, two_products=two)],
        "gradient + hvp": [first, known.hvp],
    }


def _planned(
    runner: Runner, known: Programs, programs: Sequence[Program], batch: int
) -> dict[str, Any]:
    """Returns what programs take on a backend; a tape is kept where more than one is run."""
    kept, most, launches, moved, made = 0, 0, 0, 0, list[Node]()
    for program in programs:
        keep = known.tape if program is known.linearize and len(programs) > 1 else NOTHING
        executor, tape = runner.executor(program, keep), known.tape if kept else NOTHING
        given = [*program.inputs.values(), *tape, *made]
        plan = executor.plan(batch, given)
        footprint = executor.footprint(runner.context(batch), given)
        most, kept = max(most, kept + footprint.peak), kept + footprint.kept
        if plan is not None:
            made += plan.made
            launches += len(plan.schedule.launches)
            moved += plan.schedule.traffic(batch)
    planned = {"launches": launches, "MB_moved": _mb(moved)} if launches else {}
    return {**planned, "peak_MB": _mb(most)}


def _one_by_one(known: Programs, programs: Sequence[Program], batch: int) -> dict[str, Any]:
    """Returns what programs take whose operators are run one after another."""
    kept, most, moved = 0, 0, 0
    for program in programs:
        results = set(program.graph.outputs.values())
        if program is known.linearize and len(programs) > 1:
            results |= known.tape
        outputs = {str(i): node for i, node in enumerate(results)}
        graph = Graph(program.name, outputs, program.graph.given)
        kept += FLOAT * sum(node.type.numel(batch) for node in results)
        most = max(most, kept + peak(graph, batch, FLOAT))
        moved += traffic(graph, batch, FLOAT)
    return {"MB_moved": _mb(moved), "peak_MB": _mb(most)}


def _mb(count: int) -> float:
    return round(count / 1e6, 3)


def exponents(rows: Rows) -> Rows:
    """Returns for each call the exponent of the number of positions by which its peak grows.

    Args:
        rows: those of one network at several numbers of positions, in the column `positions`.
    """
    series: dict[tuple[str, str], dict[int, float]] = {}
    for row in rows:
        series.setdefault((row["by"], row["call"]), {})[row["positions"]] = row["peak_MB"]
    return [
        {"net": rows[0]["net"], "by": by, "call": call, "growth_of_peak": round(_slope(found), 2)}
        for (by, call), found in series.items()
    ]


def _slope(found: Mapping[int, float]) -> float:
    """Returns the slope of a line through logarithms, by least squares."""
    logarithms = [(math.log(t), math.log(value)) for t, value in found.items()]
    x, y = (sum(axis) / len(logarithms) for axis in zip(*logarithms, strict=True))
    return sum((a - x) * (b - y) for a, b in logarithms) / sum((a - x) ** 2 for a, _ in logarithms)


def growing(
    make: Callable[[int], Network] = base_gpt, positions: Sequence[int] = POSITIONS
) -> Rows:
    """Returns the rows of a GPT at each number of positions, and then by what its peak grows."""
    rows = [{**row, "positions": t} for t in positions for row in counted("gpt", make(t))]
    return rows + exponents(rows)
