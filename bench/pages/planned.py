"""Tables of what programs take on fused kernels, counted in their plans: nothing is run."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

import newtriton as nt

from ...compiler.graph.cost import traffic
from ...compiler.graph.ir import Node
from ...runtime.fused.backend import TritonBackend
from ...runtime.fused.settings import settings_of
from ...runtime.model.runner import NOTHING, Runner
from .._measure import CPU
from .lines import table
from .results import Results

BATCH = 200
FLOAT = 4  # bytes


def planned(_: Results) -> Iterator[str]:
    """Yields launches and bytes of VGG11's programs, as `inspect --backend triton` counts them."""
    net = nt.models.vgg11()
    model = nt.compile(net, (3, 32, 32), nt.CrossEntropyLoss(), backend="aten", device="cpu")
    known = model.programs[True]
    backend = TritonBackend(settings_of(CPU, interpreted=True), CPU)  # as without a GPU
    runner = Runner(backend, torch.float32, model.ranks, model.layout, model.params)
    programs = {
        "loss and gradient": known.linearize,
        "and vᵀHv": known.quadratic(1, two_products=True),
        "and Hv": known.hvp,
    }
    lines, made = list[list[str]](), list[Node]()
    for title, program in programs.items():
        keep = known.tape if program is known.linearize else NOTHING
        plan = runner.executor(program, keep).plan(BATCH, made)
        assert plan is not None  # fused kernels have one
        if program is known.linearize:
            made += plan.made
        count = len(plan.schedule.launches)
        more = "" if program is known.linearize else " more"
        moved = (plan.schedule.traffic(BATCH), traffic(program.graph, BATCH, FLOAT))
        lines.append([title, f"{count}{more}", *(f"{size / 1e6:,.0f}" for size in moved)])
    head = ["launches", "MB moved by fused kernels", "… by one operator after another"]
    yield from table(["", *head], lines)


TABLES: dict[str, Callable[..., Iterator[str]]] = {"counted": planned}
