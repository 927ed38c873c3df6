"""A picture of a program as fused kernels, from its plan: nothing is launched for it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from ...compiler.graph.cost import flops
from ...compiler.graph.ir import Op
from ...compiler.lowering.code import Buffer, Part
from ...compiler.lowering.kernel import Kernel as Scheduled
from ...compiler.lowering.kernel import base, is_input
from ...compiler.lowering.space import GRAMS
from ..fused.call import Call
from ..fused.launch import (
    BlocksLaunch,
    ContractionLaunch,
    PassLaunch,
    PatchGramLaunch,
    PointwiseLaunch,
    ScatterLaunch,
    VendorLaunch,
)
from ..fused.launch import Launch as Planned
from ..fused.plan import STEP, TAPE, Plan
from ..fused.storage import Storage, dtype_of
from .gathering import Gathering, Group
from .picture import Band, Kind, Launch, Picture, Room, amount, stacked

KINDS: dict[type, str] = {
    PointwiseLaunch: "pointwise",
    PatchGramLaunch: "patch Gram",
    ScatterLaunch: "rows",
    PassLaunch: "passes",
    BlocksLaunch: "blocks",
    VendorLaunch: "vendor",
}


def picture(plan: Plan, how: str) -> Picture:
    """Returns the picture of a plan.

    Args:
        plan: a program as fused kernels, at a batch size.
        how: what the kernels are made for, in words.
    """
    schedule, storage = plan.schedule, plan.storage
    kept = {base(n) for key, n in schedule.graph.outputs.items() if key.startswith(TAPE)}
    kept |= set(plan.kept)
    results = {k: n for k, n in schedule.graph.outputs.items() if not k.startswith(TAPE)}
    asked, apart = set(map(base, results.values())), _elsewhere(plan)

    def kind(buffer: Buffer) -> Kind:
        if isinstance(buffer, Part):
            return Kind.LIBRARY if buffer in apart else Kind.BETWEEN
        if buffer.op is Op.PARAM:
            return Kind.PARAMETER
        if buffer in schedule.leaves:
            return Kind.INPUT if is_input(buffer) else Kind.TAPE
        if buffer in kept and buffer not in asked:
            return Kind.KEPT
        return Kind.RESULT if buffer in storage.results else Kind.BETWEEN

    def size(buffer: Buffer) -> int:
        if isinstance(buffer, Part) and buffer not in storage.scratch:
            return 4 * buffer.of.type.numel(storage.batch)
        return storage.size(buffer) * dtype_of(buffer).itemsize

    groups, leaves = list(_groups(plan)), schedule.leaves
    gathering = Gathering(schedule.graph, groups, kind, size, storage.batch, results, leaves)
    found = {b: v for b, v in zip(gathering.place, gathering.values, strict=True)}
    bands = list(_bands(plan, gathering.place, {b: v.kind for b, v in found.items()}))
    facts = [
        ("batch", str(storage.batch)),
        ("launches", str(len(plan.launches))),
        ("kernels", str(len(schedule.kernels))),
        ("nodes", str(len(gathering.number))),
        ("work", amount(flops(schedule.graph, storage.batch), "FLOP")),
        ("moved", amount(schedule.traffic(storage.batch), "B")),
        ("arena", amount(plan.scratch, "B")),
    ]
    launches = [_launch(*each) for each in zip(plan.launches, plan.texts, strict=True)]
    names = dict.fromkeys(name for launch in launches for name in launch.skeletons)
    functions = {f.__name__: f for p in plan.launches for f in map(_function, p.calls)}
    return Picture(
        schedule.graph.name, how, facts, gathering.values, gathering.given,
        list(gathering.kernels()), launches, bands,
        {name: inspect.getsource(functions[name]) for name in names},
        {gathering.place[n]: gathering.line(n) for n in gathering.outside},
    )  # fmt: skip


def _elsewhere(plan: Plan) -> set[Part]:
    """Returns what libraries put where they like."""
    return {part for launch in plan.launches for part in launch.use.elsewhere}


# --- kernels --------------------------------------------------------------------------------------


def _groups(plan: Plan) -> Iterator[Group]:
    """Yields the kernels of a plan with what they read and write."""
    spans = _first_uses(plan)
    for i, launch in enumerate(plan.launches):
        for q, kernel in enumerate(launch.kernels):
            yield _group(plan, i, kernel, _buffers(launch, q), spans)


def _buffers(launch: Planned, q: int) -> list[Buffer]:
    """Returns the memory that a kernel of a launch uses."""
    if isinstance(launch, PointwiseLaunch):
        return list(launch.codes[q].pointers)
    return list(dict.fromkeys([*launch.use.buffers, *launch.use.elsewhere]))


def _first_uses(plan: Plan) -> dict[Buffer, int]:
    """Returns the launch that writes each value which does not come from outside."""
    first: dict[Buffer, int] = {}
    for i, launch in enumerate(plan.launches):
        for buffer in (*launch.use.buffers, *launch.use.elsewhere):
            if buffer not in plan.storage.given:
                first.setdefault(buffer, i)
    return first


def _group(
    plan: Plan, i: int, kernel: Scheduled, buffers: Sequence[Buffer], first: Mapping[Buffer, int]
) -> Group:
    """Returns a kernel with what it reads and writes."""
    schedule, batch = plan.schedule, plan.storage.batch
    elsewhere = {**schedule.part_of, **schedule.accumulated_by}
    body = [n for n in kernel.body if elsewhere.get(n, kernel) is kernel]
    nodes = dict.fromkeys([*kernel.anchors, *body, *kernel.partials])
    written = {b for b in buffers if first.get(b) == i}
    return Group(
        i, _kind(plan.launches[i], kernel), str(kernel.space), list(nodes),
        [b for b in buffers if b not in written], [b for b in buffers if b in written],
        kernel.traffic(batch),
        [n for n in kernel.body if n not in nodes],
        {a: schedule.operands[a] for a in kernel.anchors if a in schedule.operands},
        {a: Part(head.anchors[-1]) for head in kernel.adds for a in head.anchors},
    )  # fmt: skip


def _kind(launch: Planned, kernel: Scheduled) -> str:
    """Returns how a kernel is computed."""
    if kernel.anchors and kernel.anchors[0].op in GRAMS and type(launch) is not PatchGramLaunch:
        return "Gram"
    if isinstance(launch, ContractionLaunch):
        return launch.calls[0].job.kind
    return KINDS[type(launch)]


# --- launches -------------------------------------------------------------------------------------


def _function(call: Call) -> Any:
    """Returns the Python function that a Triton kernel is made of."""
    return call.job.function.fn


def _launch(launch: Planned, text: str) -> Launch:
    """Returns the code of a launch, and how it is launched."""
    settings = [(call.job.name, _settings(call)) for call in launch.calls]
    functions = [_function(call) for call in launch.calls]
    written = [f.__name__ for f in functions if ".kernels." in f.__module__]
    note = ""
    if isinstance(launch, VendorLaunch):
        note = f"PyTorch's operator computes {launch.node!r}, and puts it where it likes."
    if isinstance(launch, BlocksLaunch):
        note = launch.refusal
    return Launch(text, settings, list(dict.fromkeys(written)), note)


def _settings(call: Call) -> str:
    """Returns how a Triton kernel is tiled and launched."""
    job = call.job
    numbers = {k: v for k, v in job.constants.items() if isinstance(v, bool | int | str)}
    constants = ", ".join(f"{name}={value}" for name, value in numbers.items())
    launched = f"{call.instances} instances of {job.warps} warps, {job.stages} stages"
    return "; ".join(filter(None, [launched, job.precision, constants]))


# --- memory ---------------------------------------------------------------------------------------


def _bands(plan: Plan, place: Mapping[Buffer, int], kinds: Mapping[Buffer, Kind]) -> Iterator[Band]:
    """Yields the memory of a plan: its arena, the tape, its results, what a library makes."""
    storage, first, end = plan.storage, _first_uses(plan), float(len(plan.launches))
    yield Band("arena", storage.arena.size, list(_arena(storage, place)))
    sorts = (("tape", Kind.TAPE), ("kept on the tape", Kind.KEPT), ("results", Kind.RESULT))
    for name, kind in sorts:
        found = [b for b, k in kinds.items() if k is kind and (b in first or kind is Kind.TAPE)]
        sizes = [storage.size(b) * dtype_of(b).itemsize for b in found]
        starts = [float(first.get(b, 0)) for b in found]
        values = [place[b] for b in found]
        rows = zip(values, starts, sizes, strict=True)
        yield stacked(name, [(v, start, end, size) for v, start, size in rows], STEP)


def _arena(storage: Storage, place: Mapping[Buffer, int]) -> Iterator[Room]:
    """Yields the values of the arena.

    One that is written over another meets it in the middle of the launch.
    """
    over: dict[Buffer, Buffer] = {}  # by value, the one that takes its place
    by_block: dict[Buffer, list[Buffer]] = {}
    for buffer in storage.lifetimes:
        by_block.setdefault(storage.block.get(buffer, buffer), []).append(buffer)
    for row in by_block.values():
        row.sort(key=lambda b: storage.lifetimes[b].first)
        over |= dict(pairwise(row))
    taken = set(over.values())
    for buffer, life in storage.lifetimes.items():
        start = life.first + (0.5 if buffer in taken else 0.0)
        stop = life.last + (0.5 if buffer in over else 1.0)
        yield Room(place[buffer], start, stop, storage.offset(buffer), life.size)
