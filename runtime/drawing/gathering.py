"""Gathers a picture: which node is drawn in which kernel, and what goes into what there.

A node is drawn once, where the work on its operands is done. What takes no kernel of its own, a
view or a value in passing, is drawn in the first kernel that needs it; others look through it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ...compiler.graph.cost import FLOPS
from ...compiler.graph.ir import LEAVES, VIEWS, Graph, Node, Op, topological
from ...compiler.lowering.code import Buffer, Part
from ...compiler.lowering.kernel import base
from .picture import Kernel, Kind, Pill, Value

LONGEST = 18  # letters of an expression that is shown whole


@dataclass(frozen=True)
class Group:
    """Nodes that are computed together.

    Attributes:
        launch: the launch that they belong to.
        kind: how they are computed.
        space: what is covered by tiles.
        nodes: those that are computed here.
        added: those whose parts, computed by another group, are added up here.
        reads: the values that are read from memory.
        writes: the values that are written.
        operands: what nodes read in place of their operands.
        apart: by node that another group accumulates, the memory where this one finds it.
        traffic: the bytes that are read and written.
    """

    launch: int
    kind: str
    space: str
    nodes: Sequence[Node]
    reads: Sequence[Buffer]
    writes: Sequence[Buffer]
    traffic: int
    added: Sequence[Node] = ()
    operands: Mapping[Node, Sequence[Node]] = field(default_factory=dict)
    apart: Mapping[Node, Part] = field(default_factory=dict)


class Gathering:
    """The kernels and values of a graph as they are drawn.

    Attributes:
        graph: the graph.
        number: the number of every node, as the graph is printed; nodes that kernels have besides
            come last.
        values: what lies in memory.
        place: the place of a buffer among the values.

    Args:
        groups: what is computed together, in order.
        kind: what a buffer is to the program.
        size: the bytes of a buffer.
        batch: the batch size.
        results: what the program is asked for, by name.
        leaves: the nodes that come from outside, besides the graph's.
    """

    def __init__(
        self,
        graph: Graph,
        groups: Sequence[Group],
        kind: Callable[[Buffer], Kind],
        size: Callable[[Buffer], int],
        batch: int,
        results: Mapping[str, Node],
        leaves: Collection[Node] = (),
    ) -> None:
        self.graph, self.batch, self._groups = graph, batch, groups
        self._leaves = {*graph.given, *leaves}
        known = dict.fromkeys(graph.nodes())
        used = (b for g in groups for b in (*g.nodes, *g.reads) if isinstance(b, Node))
        more = topological(used, stop=lambda n: n in known or n in self._leaves)
        self.number = {n: i for i, n in enumerate({**known, **dict.fromkeys(more)})}
        self._names = {base(node): name for name, node in results.items()}
        outside = [n for n in self.number if self._is_outside(n)]
        buffers = [*outside, *(b for g in groups for b in (*g.reads, *g.writes))]
        self.place = {b: i for i, b in enumerate(dict.fromkeys(buffers))}
        self.values = [self._value(b, kind(b), size(b)) for b in self.place]
        self.outside = outside
        self.given = [self.place[n] for n in outside]
        self._home = self._homes()

    def _is_outside(self, node: Node) -> bool:
        return node in self._leaves or (node.op in LEAVES and node.op is not Op.CONST)

    def _value(self, buffer: Buffer, kind: Kind, size: int) -> Value:
        """Returns a buffer as it is named."""
        node = buffer.of if isinstance(buffer, Part) else buffer
        name = f"%{self.number[node]}"
        if isinstance(buffer, Part):
            name = f"parts of {name}" if buffer.integers is None else f"indices for {name}"
            return Value(name, node.op.value, str(node.type), size, kind)
        named = node.attributes.get("name") if node.op in LEAVES else self._names.get(node)
        return Value(name, str(named or label(node)), str(node.type), size, kind)

    def _homes(self) -> dict[Node, int]:
        """Returns the group in which each node is drawn."""
        home = {n: k for k, group in enumerate(self._groups) for n in group.nodes}
        for k, group in enumerate(self._groups):
            waiting = [x for n in group.nodes for x in self._inputs(group, n)]
            while waiting:
                node = waiting.pop()
                if node not in home and not self._is_outside(node):
                    home[node] = k
                    waiting += node.inputs
        last = len(self._groups) - 1
        for node in self.number:  # views of results, which nobody reads
            if node not in home and not self._is_outside(node):
                home[node] = next((home[x] for x in node.inputs if x in home), last)
        return home

    @staticmethod
    def _inputs(group: Group, node: Node) -> Sequence[Node]:
        """Returns what a node reads in its group: of an operand that is a copy, the copy."""
        operands = group.operands.get(node, ())[:2]
        pairs = zip(operands, node.inputs, strict=False)
        return [x if base(x) is y else y for y, x in pairs] + [*node.inputs[len(operands) :]]

    def kernels(self) -> Iterator[Kernel]:
        """Yields the groups as they are drawn."""
        inside: list[list[Node]] = [[] for _ in self._groups]
        for node in self.number:
            if node in self._home:
                inside[self._home[node]].append(node)
        for group, nodes in zip(self._groups, inside, strict=True):
            yield self._kernel(group, nodes)

    def _kernel(self, group: Group, nodes: Sequence[Node]) -> Kernel:
        """Returns a group with the nodes that are drawn in it."""
        reads, drawn = list(dict.fromkeys(group.reads)), [*nodes, *group.added]
        end: dict[Buffer, int] = {b: i for i, b in enumerate(reads)}
        at = {n: len(reads) + i for i, n in enumerate(drawn)}
        known = {**end, **at}
        edges = dict[tuple[int, int], None]()
        for node in nodes:
            for x in self._inputs(group, node):
                found = self._sources(x, known, group.apart)
                edges |= dict.fromkeys((e, at[node]) for e in found)
        for node in group.added:
            found = [end.get(Part(node)), *(end.get(x) for x in node.inputs[2:])]
            edges |= dict.fromkeys((e, at[node]) for e in found if e is not None)
        first = len(reads) + len(drawn)
        for i, b in enumerate(group.writes):
            source = at.get(b.of if isinstance(b, Part) else b)
            edges |= {} if source is None else {(source, first + i): None}
        pills = [self._pill(n) for n in nodes]
        pills += [self._pill(n, "parts") for n in group.added]
        places = dict.fromkeys(n.place for n in (*group.nodes, *group.added) if n.place)
        return Kernel(
            group.launch, group.kind, group.space, ", ".join(places), pills,
            [self.place[b] for b in reads], [self.place[b] for b in group.writes],
            list(edges), sum(FLOPS[n.op](n, self.batch) for n in nodes), group.traffic,
        )  # fmt: skip

    @staticmethod
    def _sources(
        node: Node, known: Mapping[Buffer, int], apart: Mapping[Node, Part]
    ) -> Iterable[int]:
        """Returns the ends that a value comes from, through views that are drawn elsewhere.

        What was accumulated apart lacks its bias, which is added here.
        """
        found, seen, waiting = dict[int, None](), set[Node](), [node]
        while waiting:
            x = waiting.pop()
            places = [x, base(x), apart.get(x, Part(x))]
            end = next((known[b] for b in places if b in known), None)
            if end is not None:
                found[end] = None
                waiting += x.inputs[2:] if x in apart else ()
            elif x not in seen:
                seen.add(x)
                waiting += x.inputs
        return found

    def _pill(self, node: Node, style: str = "") -> Pill:
        """Returns a node as it is drawn."""
        chosen = style or ("view" if node.op in VIEWS or node.op is Op.CONST else "op")
        return Pill(self.number[node], label(node), self.line(node), chosen)

    def line(self, node: Node) -> str:
        """Returns the line of a node in the printed graph."""
        return self.graph.line(node, self.number)


def label(node: Node) -> str:
    """Returns what stands in the picture for a node: of maps and numbers what is computed."""
    if node.op not in (Op.MAP, Op.CONST):
        return node.op.value
    text = str(node["expr" if node.op is Op.MAP else "value"])
    inside = text[1:-1] if text.startswith("(") and ")" not in text[:-1] else text
    if len(inside) <= LONGEST:
        return inside
    functions = dict.fromkeys(re.findall(r"[a-z_]+(?=\()", text))
    words = ["map", *functions]
    while len(" ".join(words)) > LONGEST:
        words.pop()
    return " ".join(words)
