"""Streams: what is computed in passing, block by block, and what leaves it for memory.

A wide value is computed wherever it is read, from narrow values, and never written whole. What
reads it and is not wide itself is a sink of it: sums of rows, products with what stands for its
columns, sums over its rows. Sinks that can be had together are one stream: those between which
nothing happens that needs a whole value.

    stage(wide) = the latest stage of what it reads
    a sum of a row may be read in passing at its own stage; whatever else leaves a stream is there
    for stages after it

A backward pass therefore recomputes what the forward pass had in passing: where an adjoint comes
from above, it is of a later stage.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..graph.ir import LEAVES, Dim, Graph, Node, Op, Shape, is_batched
from .wide import MADE_IN_PASSING, SHORT, depth, is_made_in_passing, trailing, wide_shapes

OF_ROWS = frozenset({Op.ROW_MAX, Op.LOG_SUM_EXP, Op.SAMPLE})
CHEAP = frozenset({Op.BROADCAST, Op.ONE_HOT})  # made outside too, where somebody reads them there


@dataclass(frozen=True, eq=False)
class Stream:
    """Wide values that are computed together, and their sinks.

    Attributes:
        shape: the shape in which that of every wide value ends: (*lead, rows, columns).
        nodes: what is computed in passing, and the sinks, operands first.
        reads: the values that are read from memory.
        writes: the sinks.
    """

    shape: Shape
    nodes: Sequence[Node]
    reads: Sequence[Node]
    writes: Sequence[Node]

    def __str__(self) -> str:
        found = [n.op.value for n in self.writes]
        return f"{' '.join(found)} of {'×'.join(map(str, self.shape))} in passing"


Item = Node | Stream


def in_order(
    graph: Graph,
    asked: Iterable[Node],
    deepest: int | None = None,
    large: Callable[[Shape], bool] = lambda shape: False,
) -> tuple[list[Item], list[Stream]]:
    """Returns what a graph computes, streams among it, in execution order, and the streams.

    Args:
        graph: what to compute.
        asked: the values that must lie in memory in the end.
        deepest: the depth up to which products are computed in passing; None for any.
        large: whether those of a shape are, whatever their depth, for they take too much memory.
    """
    nodes, asked = graph.computed(), frozenset(asked)
    roots = [*graph.outputs.values(), *asked]
    shapes = wide_shapes(roots)
    found = _Finder(nodes, asked, shapes, deepest, large).streams()
    passing = Counter(n for stream in found for n in stream.nodes if depth(n) > SHORT)
    if twice := {n for n, count in passing.items() if count > 1}:
        found = _Finder(nodes, asked | twice, shapes, deepest, large).streams()
    if not found:
        return list(nodes), []
    return list(_sorted(roots, graph.given, found)), found


def _sorted(
    roots: Sequence[Node], given: Collection[Node], streams: Sequence[Stream]
) -> Iterator[Item]:
    """Yields what the roots need, operands first, streams as a whole."""
    of = {n: stream for stream in streams for n in stream.writes}
    done: set[Item] = set()
    stack: list[tuple[Item, bool]] = [(of.get(n, n), False) for n in reversed(roots)]
    while stack:
        item, entered = stack.pop()
        if item in done:
            continue
        if isinstance(item, Node) and (item in given or item.op in LEAVES):
            done.add(item)
            continue
        if entered:
            done.add(item)
            yield item
            continue
        stack.append((item, True))
        operands = item.reads if isinstance(item, Stream) else item.inputs
        stack += [(of.get(n, n), False) for n in reversed(operands)]


@dataclass
class _Finder:
    """Finds the streams of a list of nodes, operands first.

    Attributes:
        stage: of what can be had in passing, the stage at which it can first.
        since: of what lies in memory, the first stage that can read it.
        of_shape: the wide shape that something in passing belongs to.
        stored: wide values that are written.
    """

    nodes: Sequence[Node]
    asked: frozenset[Node]
    shapes: frozenset[Shape]
    deepest: int | None
    large: Callable[[Shape], bool]
    stage: dict[Node, int] = field(default_factory=dict)
    since: dict[Node, int] = field(default_factory=dict)
    of_shape: dict[Node, Shape] = field(default_factory=dict)

    def streams(self) -> list[Stream]:
        """Returns the streams, in an order in which they can be computed."""
        if not self.shapes:
            return []
        self.wide = self._wide()
        self.stored = self._stored()
        sinks = [node for node in self.nodes if self._note(node)]
        self._delay(sinks)
        roots: dict[tuple[Shape, int], list[Node]] = {}
        for node in sinks:
            roots.setdefault((self.of_shape[node], self.stage[node]), []).append(node)
        self.place = {node: i for i, node in enumerate(self.nodes)}
        found = [
            stream
            for (shape, stage), sinks in roots.items()
            for stream in self._connected(shape, stage, sinks)
        ]
        return [
            s for s in found if any(n.op is not Op.BROADCAST for n in s.nodes if n in self.wide)
        ]

    def _wide(self) -> frozenset[Node]:
        """Returns the nodes that are made in passing."""
        found: set[Node] = set()
        for n in self.nodes:
            if not is_made_in_passing(n, self.shapes):
                continue
            if n.op is Op.MATMUL:
                deep = not self._is_short(n, depth(n))
                whole = n in self.asked or not found.isdisjoint(n.inputs)
                if deep or whole:
                    continue
            found.add(n)
        return frozenset(found)

    def _stored(self) -> frozenset[Node]:
        """Returns wide values that are asked for, or that something reads as a whole."""
        readers = [n for n in self.nodes if n not in self.wide and not self._is_sink(n)]
        read = self.asked.union(*(n.inputs for n in readers))
        return frozenset(n for n in self.wide if n in read and n.op not in CHEAP)

    def _is_sink(self, node: Node) -> bool:
        """Whether a node takes wide values block by block, and is not wide itself."""
        wide = [x for x in node.inputs if x in self.wide]
        if node in self.wide or not wide:
            return False
        if node.op is Op.MATMUL:
            return len(wide) == 1 and len(node.inputs) == 2 and self._can_hold(node)
        return node.op is Op.REDUCE_SUM or (node.op in OF_ROWS and node.inputs[0] in self.wide)

    def _can_hold(self, node: Node) -> bool:
        """Whether rows of a product with a wide value are no longer than those of narrow ones."""
        wide = node.inputs[0 if node.inputs[0] in self.wide else 1]
        return self._is_short(wide, held(node, self.wide))

    def _is_short(self, wide: Node, size: Dim) -> bool:
        """Whether so many numbers belong to an element, or a row, of a value in passing."""
        shape = trailing(wide.shape, self.shapes)
        if self.deepest is None or (shape is not None and self.large(shape)):
            return True
        return not is_batched(size) and size <= self.deepest

    def _note(self, node: Node) -> bool:
        """Notes from when on a node can be had; returns whether it leaves a stream."""
        sink = self._is_sink(node)
        if node in self.wide or sink:
            wide = node if node in self.wide else next(x for x in node.inputs if x in self.wide)
            shape = trailing(wide.shape, self.shapes)
            assert shape is not None
            stage = max((self._read_at(node, x, shape) for x in node.inputs), default=0)
            if node in self.wide or is_of_rows(node, self.wide):
                self.stage[node], self.of_shape[node] = stage, shape
            if sink or node in self.stored:
                self.stage[node], self.of_shape[node] = stage, shape
                self.since[node] = stage + 1
            elif node.op in CHEAP:
                self.since[node] = self._since(node)
            return sink or node in self.stored
        self.since[node] = self._since(node)
        near = [x for x in node.inputs if x in self.of_shape and x not in self.wide]
        if node.op is Op.MAP and near and all(map(self._in_passing, near)):
            self.of_shape[node] = shape = self.of_shape[near[0]]
            self.stage[node] = max(self._ready(x, shape) for x in node.inputs)
        return False

    def _since(self, node: Node) -> int:
        return max((self.since.get(x, 0) for x in node.inputs), default=0)

    def _in_passing(self, x: Node) -> bool:
        """Whether a value that is not wide is complete for the rows of a block, as they pass."""
        return x in self.of_shape and (x.op is Op.MAP or is_of_rows(x, self.wide))

    def _read_at(self, node: Node, x: Node, shape: Shape) -> int:
        """Returns the first stage at which something in passing can read an operand."""
        return self._ready(x, shape) if self._along(x, node) else self.since.get(x, 0)

    def _along(self, x: Node, reader: Node) -> bool:
        """Whether what reads an operand needs no more of it than the rows that pass."""
        if x in self.wide:
            return True
        if reader.op is Op.MATMUL:  # over rows, both operands' own
            over_rows = reader["transpose_a"] and not reader["transpose_b"]
            return over_rows and reader not in self.wide
        if reader.op is not Op.BROADCAST:
            return reader.op is Op.MAP
        kept = [axis for axis in range(len(reader.shape)) if axis not in reader["axes"]]
        return kept[-1:] == [len(reader.shape) - 2]

    def _ready(self, x: Node, shape: Shape) -> int:
        """Returns the first stage at which a value can be read in passing."""
        in_passing = x in self.wide or self._in_passing(x)
        if in_passing and self.of_shape[x] == shape:
            return self.stage[x]
        return self.since.get(x, 0)

    def _delay(self, sinks: Sequence[Node]) -> None:
        """Lets sinks that nobody waits for go with later ones of the same wide values."""
        due: dict[Node, float] = {}  # since when a value must be there, for nothing to be later
        wide = {sink: self._wide_below(sink) for sink in sinks}
        for node in reversed(self.nodes):
            if node in wide:
                later = [
                    self.stage[other]
                    for other in sinks
                    if self.of_shape[other] == self.of_shape[node]
                    and self.stage[node] < self.stage[other] < due.get(node, math.inf)
                    and not wide[node].isdisjoint(wide[other])
                ]
                self.stage[node] = max(later, default=self.stage[node])
                self.since[node] = self.stage[node] + 1
            for x in node.inputs:
                due[x] = min(due.get(x, math.inf), self._needed(x, node, due))

    def _needed(self, x: Node, reader: Node, due: Mapping[Node, float]) -> float:
        """Returns since when a value must be there for what reads it."""
        needed = math.inf if reader in self.wide else due.get(reader, math.inf)
        if reader in self.stage:
            passes = x in self.wide or self._in_passing(x)
            needed = min(needed, self.stage[reader] + (passes and self._along(x, reader)))
        return needed

    def _wide_below(self, sink: Node) -> set[Node]:
        """Returns the wide values that a sink follows from without going through memory."""
        found: set[Node] = set()
        waiting = [sink]
        while waiting:
            fresh = [x for x in waiting.pop().inputs if x in self.wide and x not in found]
            found.update(fresh)
            waiting += fresh
        return {x for x in found if x.op not in CHEAP}

    def _connected(self, shape: Shape, stage: int, sinks: Sequence[Node]) -> Iterator[Stream]:
        """Yields streams of sinks of one stage: those that have something wide in common."""
        groups: list[tuple[list[Node], set[Node]]] = []
        for sink in sinks:
            together, nodes = [sink], self._slice(sink, shape, stage)
            for group in [g for g in groups if not nodes.isdisjoint(g[1])]:
                groups.remove(group)
                together, nodes = [*group[0], *together], nodes | group[1]
            groups.append((together, nodes))
        for together, nodes in groups:
            order = sorted(nodes, key=self.place.__getitem__)
            read = dict.fromkeys(x for n in order for x in n.inputs if x not in nodes)
            yield Stream(shape, order, tuple(read), together)

    def _slice(self, sink: Node, shape: Shape, stage: int) -> set[Node]:
        """Returns a sink and all that is computed in passing for it."""
        found, waiting = {sink}, [sink]
        while waiting:
            node = waiting.pop()
            fresh = [x for x in node.inputs if x not in found and self._passes(x, shape, stage)]
            found.update(fresh)
            waiting += fresh
        return found

    def _passes(self, x: Node, shape: Shape, stage: int) -> bool:
        """Whether a value is computed in passing where it is read at a stage."""
        if self.of_shape.get(x) != shape:
            return False
        if x in self.wide and x not in self.stored:
            return True
        if self.stage[x] != stage or x in self.wide:
            return self.stage[x] == stage
        if x.op is Op.MAP:  # of what passes, not of sums that are in memory
            return any(self._passes(y, shape, stage) for y in x.inputs)
        return is_of_rows(x, self.wide)


def held(node: Node, wide: Collection[Node]) -> Dim:
    """Returns the numbers of an element of a wide product, or of a row of a product with one."""
    return depth(node) if node in wide else node.shape[-1 if node.inputs[0] in wide else -2]


def is_of_rows(node: Node, wide: Collection[Node]) -> bool:
    """Whether a sink has a value, or several, for each row of what it takes, of that row alone."""
    if node.op is Op.REDUCE_SUM:
        (x,) = node.inputs
        return x in wide and node["axes"] == (len(x.shape) - 1,)
    if node.op is Op.MATMUL:
        return node.inputs[0] in wide and not node["transpose_a"]
    return node.op in OF_ROWS


def wide_of(stream: Stream) -> list[Node]:
    """Returns the wide values of a stream."""
    shapes = frozenset({stream.shape})
    return [
        n for n in stream.nodes if n.op in MADE_IN_PASSING and trailing(n.shape, shapes) is not None
    ]
