"""What the nodes of a graph read, before anybody knows which kernel computes them.

Values that `elements` can look up elsewhere (broadcasts, pools, gathers) are nowhere in memory, and
belong to whoever reads them; so are maps of given values, which every reader computes again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from ..graph import ops
from ..graph.ir import LEAVES, VIEWS, Graph, Node, Op, Shape, is_batched, topological
from ..streaming.streams import Item, Stream, held, in_order, wide_of
from ..streaming.views import View, view
from ..streaming.wide import trailing
from .elements import ELEMENTS
from .indexing import At
from .kernel import ANCHORS, Way, base, is_data
from .operands import contraction_operands
from .precision import is_rounded
from .space import Space, is_partial
from .tile import UNKNOWN, Along, Index, Mask, T, Value

LOOKED_UP = frozenset(ELEMENTS) - {
    Op.MAP,
    Op.REDUCE_SUM,
    Op.ARGMAX_POOL,
    Op.ROW_MAX,
    Op.LOG_SUM_EXP,
    Op.SAMPLE,
}

# A value that so many lookups separate from memory is computed: chains of layers without parameters
# cost neither recursion nor a kernel that computes all of them again.
LONGEST_CHAIN = 48

# A product of an element of a wide value, and one with it, that are no longer or broader than this
# are taken in passing: a tile of rows of the narrow operand stays in registers.
DEEPEST = 128
# Where wide values of so many elements, 8 GiB, would be written for contractions or by them,
# products of any depth are taken in passing, in blocks: that moves more, and holds nothing.
LARGE = 1 << 31

Ways = Callable[[Node, int], Way]
Source = tuple[Node, At]


def items(graph: Graph, batch: int) -> list[Item]:
    """Returns what kernels compute of a graph, and what they compute in passing."""
    asked = frozenset(map(base, graph.outputs.values()))
    found, streams = in_order(graph, asked, DEEPEST)
    large = _large(found, {s.shape for s in streams}, asked, batch)
    return in_order(graph, asked, DEEPEST, large.__contains__)[0] if large else found


def _large(
    found: Iterable[Item], shapes: Collection[Shape], asked: Collection[Node], batch: int
) -> set[Shape]:
    """Returns the shapes of which too much would be written at a batch size."""
    written: dict[Shape, int] = {}
    nodes = (n for i in found for n in (i.writes if isinstance(i, Stream) else [i]))
    for node in nodes:
        shape = trailing(node.shape, frozenset(shapes))
        if shape is not None and node not in asked and node.op not in VIEWS:
            written[shape] = written.get(shape, 0) + node.type.numel(batch)
    return {shape for shape, size in written.items() if size >= LARGE}


def in_blocks(stream: Stream) -> list[Node]:
    """Returns the wide values of a stream whose products no kernel holds: they pass in blocks."""
    wide = wide_of(stream)
    sizes = [held(n, wide) for n in stream.nodes if n.op is Op.MATMUL]
    if not any(is_batched(size) or size > DEEPEST for size in sizes):
        return []
    return [n for n in wide if n.op is not Op.BROADCAST]


def contractions(graph: Graph, batch: int) -> list[Node]:
    """Returns the contractions of a graph that are computed by themselves, not in passing."""
    return [n for n in items(graph, batch) if isinstance(n, Node) and n.op in ANCHORS]


class _Looker:
    """The reader that notes which values an element is computed from, and at which indices."""

    def __init__(self, looked_up: Callable[[Node], bool], space: Space) -> None:
        self.looked_up, self.space = looked_up, space
        self.found: dict[Source, None] = {}
        self.seen: set[Source] = set()

    def value(self, node: Node, at: At, valid: Mask | None) -> Value:
        if (node, at) not in self.seen:
            self.seen.add((node, at))
            if self.looked_up(node):
                ops.rule_of(ELEMENTS, node, "element")(self, node, at, valid)
            elif node.op is not Op.CONST:
                self.found[node, at] = None
        return UNKNOWN

    def name(self, term: T) -> T:
        return term

    def along_row(
        self, what: Along, at: At, element: Callable[[At], Value], *operands: Value
    ) -> Value:
        return element((*at, self.space.coordinates[-1]))

    def total(self, dims: Shape, element: Callable[[At], Value]) -> Value:
        return element(tuple(Index.named(f"l{i}") for i in range(len(dims))))


class Reading:
    """The nodes of a graph that need a place, and what each reads.

    Args:
        graph: what to compute.
        batch: the batch size that `ways` is asked about.
        ways: how a contraction is computed at a batch size.

    Attributes:
        asked: values that must lie in memory in the end.
        ways: how every contraction is computed.
        operands: what every contraction reads.
        stream_of: for what leaves a stream, the stream.
        views: for every stream, how the values that it reads lie in memory, in its order.
        earlier: for a sum over ranks, the one before it: all ranks take them in this order,
            whatever their batch sizes are.
        users: for every value, the nodes that read it.
        nodes: the nodes to place, operands first, copies made for contractions among them.
        rules_applied: how often an element rule has been run, which tests count as work.
    """

    def __init__(self, graph: Graph, batch: int, ways: Ways) -> None:
        self.graph = graph
        found = items(graph, batch)
        streams = [s for s in found if isinstance(s, Stream)]
        self.stream_of = {n: stream for stream in streams for n in stream.writes}
        self.views = {s: [self._view(x, batch) for x in s.reads] for s in streams}
        computed = [n for i in found for n in (i.writes if isinstance(i, Stream) else [i])]
        self.asked = dict.fromkeys(map(base, graph.outputs.values()))
        alone = [n for n in computed if n not in self.stream_of]
        self.ways = {n: ways(n, batch) for n in alone if n.op in ANCHORS}
        self.operands = {n: contraction_operands(n, way.by_vendor) for n, way in self.ways.items()}
        sums = [n for n in computed if n.op is Op.ALL_SUM]
        self.earlier = dict(zip(sums[1:], sums, strict=False))
        self.users: dict[Node, set[Node]] = {}
        for node in computed:
            for x in self.whole(node) or node.inputs:
                self.users.setdefault(x, set()).add(node)
        copied = {x for s in streams for x in s.reads} - self.users.keys() - self.asked.keys()
        self.nodes: dict[Node, None] = {}
        for node in computed:
            needed = (*self.whole(node), *(() if node in copied else (node,)))
            self.nodes |= dict.fromkeys(x for x in needed if not self.leaf(x))
        self._memory = {*self.asked, *self.stream_of}.union(*map(self.whole, computed))
        self._again = self._maps_of_given(computed)
        self._break_chains()
        self._sources: dict[tuple[Node, Space, bool], Sequence[Source]] = {}
        self.rules_applied = 0

    def _view(self, x: Node, batch: int) -> View:
        """Returns how an operand of a stream lies in memory: it is rounded before it is moved."""
        if self.leaf(x) or not is_rounded(x):
            return view(x, self.leaf, batch)
        moved = view(x.inputs[0], self.leaf, batch)
        return View(ops.map_(x["expr"], moved.of), moved.steps)

    def whole(self, node: Node) -> Sequence[Node]:
        """Returns what must lie in memory for a contraction, or for what leaves a stream."""
        if node in self.stream_of:
            return [v.of for v in self.views[self.stream_of[node]]]
        return self.operands.get(node, ())

    def leaf(self, node: Node) -> bool:
        """Whether a value is given."""
        return node in self.graph.given or node.op in LEAVES or is_data(node)

    def looked_up(self, node: Node) -> bool:
        """Whether a value is nowhere, its readers reading its operands instead."""
        if node in self._memory or self.leaf(node):
            return False
        return node.op in LOOKED_UP or node in self._again

    def _maps_of_given(self, computed: Iterable[Node]) -> set[Node]:
        """Returns the maps that follow from given values by maps and looking up."""
        follows: set[Node] = set()
        for node in computed:
            if (node.op is Op.MAP or node.op in LOOKED_UP) and all(
                x in follows or self.leaf(x) for x in node.inputs
            ):
                follows.add(node)
        return {n for n in follows if n.op is Op.MAP}

    def _break_chains(self) -> None:
        lookups: dict[Node, int] = {}
        for node in self._all():
            if self.looked_up(node):
                lookups[node] = 1 + max(lookups.get(x, 0) for x in node.inputs)
                if lookups[node] > LONGEST_CHAIN:
                    self._memory.add(node)
                    lookups[node] = 0

    def _all(self) -> list[Node]:
        """Returns all nodes that somebody may ask about, operands first."""
        operands = (x for node in (*self.operands, *self.stream_of) for x in self.whole(node))
        roots = [*self.graph.outputs.values(), *self.asked, *operands]
        return topological(roots, stop=lambda n: n in self.graph.given or n in self.stream_of)

    def leaves(self) -> frozenset[Node]:
        """Returns the given values, and the leaves."""
        return frozenset(filter(self.leaf, self._all()))

    def all_looked_up(self) -> frozenset[Node]:
        """Returns the values that are looked up."""
        return frozenset(filter(self.looked_up, self._all()))

    def sources(self, node: Node, space: Space, part: bool = False) -> Sequence[Source]:
        """Returns the values that a node computed in a space reads, and where.

        Args:
            node: the node.
            space: the space of the kernel that computes it.
            part: whether it is a sum of which tiles give parts: then what they add is read.
        """
        if node in self.stream_of:
            return ()
        key = node, space, part
        if key not in self._sources:
            looker = _Looker(self.looked_up, space)
            if part:
                x = node.inputs[0]
                looker.value(x, space.home(x.shape) or (), None)
            elif node.op in ANCHORS:
                for bias in node.inputs[2:]:
                    looker.value(bias, (space.coordinates[-1],), None)
            elif not is_partial(node):
                rule = ops.rule_of(ELEMENTS, node, "element")
                rule(looker, node, space.home(node.shape) or (), None)
            self.rules_applied += len(looker.seen)
            self._sources[key] = list(looker.found)
        return self._sources[key]
