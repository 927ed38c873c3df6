"""A picture of a program on PyTorch's operators: what the executor groups, and what is alive when.

Views are drawn with what reads them. Where values lie is up to PyTorch: they are drawn as if they
shared one arena.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from ...compiler.graph.cost import flops, owner, traffic
from ...compiler.graph.ir import VIEWS, Graph, Node, Op
from ...compiler.graph.memory import Lifetime, arena
from ...compiler.lowering.code import Buffer
from ..aten.executor import AtenExecutor
from ..aten.pairs import Step
from ..aten.passing import Passing
from ..aten.pointwise import Pointwise
from .gathering import Gathering, Group
from .picture import Band, Kind, Launch, Picture, Room, amount, stacked

ALIGNED = 8  # bytes of an integer


def picture(executor: AtenExecutor, batch: int, itemsize: int) -> Picture:
    """Returns the picture of a program.

    Args:
        executor: what runs it.
        batch: the batch size.
        itemsize: the bytes of a number.
    """
    results = {k: owner(executor.became[n]) for k, n in executor.graph.outputs.items()}
    kept = {owner(executor.became[n]) for n in executor.keep}
    asked, given = set(results.values()), executor.graph.given
    graph = Graph(
        executor.graph.name,
        {k: executor.became[n] for k, n in executor.graph.outputs.items()}
        | {f"tape:{i}": executor.became[n] for i, n in enumerate(executor.keep)},
        given,
    )

    def kind(buffer: Buffer) -> Kind:
        assert isinstance(buffer, Node), "operators leave nothing between them but values"
        if buffer.op in (Op.INPUT, Op.PARAM):
            return Kind.INPUT if buffer.op is Op.INPUT else Kind.PARAMETER
        if buffer in given:
            return Kind.TAPE
        return Kind.RESULT if buffer in asked else Kind.KEPT if buffer in kept else Kind.BETWEEN

    def size(buffer: Buffer) -> int:
        return buffer_size(buffer, batch, itemsize)

    steps = [s for s in executor.steps if not VIEWS.issuperset(n.op for n in s.writes)]
    groups = [_group(i, step, size) for i, step in enumerate(steps)]
    gathering = Gathering(graph, groups, kind, size, batch, results)
    kinds = {b: v.kind for b, v in zip(gathering.place, gathering.values, strict=True)}
    bands = list(_bands(gathering, groups, kinds))
    facts = [
        ("batch", str(batch)),
        ("calls", str(len(groups))),
        ("nodes", str(len(gathering.number))),
        ("work", amount(flops(graph, batch), "FLOP")),
        ("moved", amount(sum(g.traffic for g in groups), "B")),
        ("moved node by node", amount(traffic(graph, batch, itemsize), "B")),
        ("alive at most", amount(bands[0].size, "B")),
    ]
    return Picture(
        graph.name, "PyTorch's operators", facts, gathering.values, gathering.given,
        list(gathering.kernels()), [Launch(note=NOTES[g.kind]) for g in groups], bands,
        outside={gathering.place[n]: gathering.line(n) for n in gathering.outside},
    )  # fmt: skip


NOTES = {
    "operator": "PyTorch's operator for this node.",
    "pattern": "An operator of PyTorch that computes all of these nodes.",
    "maps": "Maps over a shape, chunk by chunk, so that what is between them stays in the cache.",
    "blocks": "Values in passing, block by block: none of them is whole in memory.",
}


def buffer_size(buffer: Buffer, batch: int, itemsize: int) -> int:
    """Returns the bytes of a value; integers have 64 bits."""
    node = buffer if isinstance(buffer, Node) else buffer.of
    return node.type.numel(batch) * (ALIGNED if node.type.kind == "int" else itemsize)


def _kind(step: Step) -> str:
    """Returns how a step is computed."""
    if isinstance(step.call, Passing):
        return "blocks"
    if isinstance(step.call, Pointwise):
        return "maps"
    (node, *others) = step.writes
    return "operator" if not others and list(step.reads) == list(node.inputs) else "pattern"


def _group(i: int, step: Step, size: Callable[[Buffer], int]) -> Group:
    """Returns a step with what it reads and writes."""
    reads = list(dict.fromkeys(owner(x) for x in step.reads if owner(x).op is not Op.CONST))
    node = step.writes[0]
    space = str(node.type) if len(step.writes) == 1 else f"{len(step.writes)} values"
    moved = sum(map(size, (*reads, *step.writes)))
    return Group(i, _kind(step), space, list(step.writes), reads, list(step.writes), moved)


def _bands(
    gathering: Gathering, groups: Sequence[Group], kinds: Mapping[Buffer, Kind]
) -> Iterator[Band]:
    """Yields what is alive between the calls, and what outlives them."""
    first = {b: group.launch for group in groups for b in group.writes}
    last = dict(first)
    for group in groups:
        last |= {b: group.launch for b in group.reads if b in first}
    size = {b: v.size for b, v in zip(gathering.place, gathering.values, strict=True)}
    between = {b: Lifetime(size[b], first[b], last[b]) for b in first if kinds[b] is Kind.BETWEEN}
    packed = arena(between)
    place, end = gathering.place, float(len(groups))
    yield Band("between calls", packed.size, [
        Room(place[b], float(life.first), life.last + 1.0, packed.offsets[b], life.size)
        for b, life in between.items()
    ])  # fmt: skip
    yield stacked("tape", [(place[b], 0.0, end, size[b]) for b in place if kinds[b] is Kind.TAPE])
    for name, kind in (("kept on the tape", Kind.KEPT), ("results", Kind.RESULT)):
        found = [(place[b], float(first[b]), end, size[b]) for b in first if kinds[b] is kind]
        yield stacked(name, found)
