"""Which nodes share a kernel.

Nodes are placed one by one, operands first, into a kernel that computes one of their operands,
unless that would close a cycle. So every value is computed once, and written only if another kernel
reads it or somebody outside asks for it. Values that `elements` can look up elsewhere (broadcasts,
pools, gathers) belong to whoever reads them. In the end kernels that do not wait for each other and
read one value become one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import networkx as nx

from ..graph.ir import CONTRACTIONS, LEAVES, Graph, Node, Op, Shape
from .elements import ELEMENTS, LONGEST_ROW, At, Index, reduction
from .kernel import (
    ANCHORS,
    Kernel,
    Schedule,
    Space,
    Way,
    base,
    home_space,
    in_rows,
    is_outer,
    is_partial,
    small,
    space_of,
)
from .operands import coefficients, contraction_operands, geometry

LOOKED_UP = frozenset(ELEMENTS) - {
    Op.MAP,
    Op.REDUCE_SUM,
    Op.ARGMAX_POOL,
    Op.ROW_MAX,
    Op.SAMPLE,
}

Ways = Callable[[Node, int], Way]


class _Looker:
    """Notes which values an element is computed from, and at which indices."""

    def __init__(self, looked_up: Callable[[Node], bool], space: Space) -> None:
        self.looked_up, self.space = looked_up, space
        self.found: dict[tuple[Node, At], None] = {}

    def value(self, node: Node, at: At, valid: Index | None) -> Index:
        if self.looked_up(node):
            return ELEMENTS[node.op](self, node, at, valid)
        if node.op is not Op.CONST:
            self.found[node, at] = None
        return Index("x")

    def name(self, value: Index) -> Index:
        return value

    def along_row(
        self, form: str, at: At, element: Callable[[At], Index], *operands: Index
    ) -> Index:
        return element((*at, self.space.coordinates[-1]))

    def total(self, dims: Shape, element: Callable[[At], Index]) -> Index:
        return element(tuple(Index(f"l{i}") for i in range(len(dims))))


class _Scheduler:
    """Places the nodes of one graph."""

    def __init__(self, graph: Graph, batch: int, ways: Ways) -> None:
        self.graph, self.batch = graph, batch
        self.asked = dict.fromkeys(map(base, graph.outputs.values()))
        self.order = nx.DiGraph()
        self.owner: dict[Node, Kernel] = {}
        self.part_of: dict[Node, Kernel] = {}
        computed = graph.computed()
        self.ways = {n: ways(n, batch) for n in computed if n.op in ANCHORS}
        self.operands = {n: contraction_operands(n, way.by_vendor) for n, way in self.ways.items()}
        self.memory = {*self.asked}.union(*self.operands.values())
        self.users: dict[Node, set[Node]] = {}
        for node in computed:
            for x in self.operands.get(node, node.inputs):
                self.users.setdefault(x, set()).add(node)
        self.again: set[Node] = set()
        self.nodes: dict[Node, None] = {}
        for node in computed:
            if node.op is Op.MAP and all(map(self.given, node.inputs)):
                self.again.add(node)
            self.nodes |= dict.fromkeys(x for x in self.operands.get(node, ()) if not self.leaf(x))
            self.nodes[node] = None

    def leaf(self, node: Node) -> bool:
        """Whether a value is given; an image is given in the order of its channels last."""
        given = node in self.graph.given or node.op in LEAVES
        return given or (node.op is Op.TRANSPOSE and node.inputs[0].op is Op.INPUT)

    def given(self, node: Node) -> bool:
        """Whether a value follows from given ones by maps and looking up."""
        if self.leaf(node) or node in self.again:
            return True
        return node.op in LOOKED_UP and all(map(self.given, node.inputs))

    def looked_up(self, node: Node) -> bool:
        """Whether a value is nowhere, its readers reading its operands instead.

        So are maps of given values: they are computed again by every reader.
        """
        if node in self.memory or self.leaf(node):
            return False
        return node.op in LOOKED_UP or node in self.again

    def run(self) -> Schedule:
        """Places every node; numbers and vectors only when somebody needs them.

        So what a scalar waits for is what it is computed from, not what happened to come before.
        """
        for node in self.nodes:
            if is_partial(node):
                self.place_parts(node)
            elif not (small(node) or self.looked_up(node)):
                self.place(node)
        self.require(self.asked)
        self.share_loops()
        self.share_reads()
        return self.finish()

    def require(self, values: Iterable[Node]) -> None:
        """Places what is not placed yet."""
        for value in values:
            if value not in self.owner and not self.leaf(value):
                self.place(value)

    # --- one node -------------------------------------------------------------------------------

    def kernel(self, space: Space, **what: object) -> Kernel:
        """A new kernel."""
        number = max((k.number for k in self.order), default=-1) + 1
        kernel = Kernel(number, space, **what)  # type: ignore[arg-type]
        self.order.add_node(kernel)
        return kernel

    def wait(self, kernel: Kernel, values: Iterable[Node]) -> None:
        """Orders a kernel behind those that compute values it reads."""
        for value in values:
            producer = self.owner.get(value)
            if producer is not None and producer is not kernel:
                self.order.add_edge(producer, kernel)

    def reads(self, node: Node, space: Space, part: bool = False) -> dict[tuple[Node, At], None]:
        """Values that a node computed in a space reads; for a sum, those that it adds per tile."""
        looker = _Looker(self.looked_up, space)
        if part:
            x = node.inputs[0]
            looker.value(x, space.home(x.shape) or (), None)
        elif node.op in ANCHORS:
            for bias in node.inputs[2:]:
                looker.value(bias, (space.coordinates[-1],), None)
        elif not is_partial(node):
            ELEMENTS[node.op](looker, node, space.home(node.shape) or (), None)
        return looker.found

    def place(self, node: Node) -> None:
        """A contraction starts a kernel; anything else goes into the best kernel that it fits."""
        sources = [s for s, _ in self.reads(node, home_space(node))]
        self.require((*self.operands.get(node, ()), *sources))
        if node.op is Op.MAP:
            self.join_anchors(node)
        if node.op in ANCHORS:
            kernel = self.kernel(space_of(node), anchors=[node], way=self.ways[node])
            self.wait(kernel, self.operands[node])
            if kernel.way.apart:
                head, kernel = kernel, self.kernel(kernel.space, body=[node], adds=[kernel])
                self.order.add_edge(head, kernel)
        else:
            kernel = self.choose(node, home_space(node))
            kernel.body.append(node)
        self.wait(kernel, sources)
        if is_partial(node):
            self.order.add_edge(self.part_of[node], kernel)
        self.owner[node] = kernel

    def place_parts(self, node: Node) -> None:
        """A sum's parts, in a kernel that computes the terms."""
        sources = [s for s, _ in self.reads(node, space_of(node), part=True)]
        self.require(sources)
        kernel = self.choose(node, space_of(node), part=True)
        kernel.partials.append(node)
        self.wait(kernel, sources)
        self.part_of[node] = kernel

    def choose(self, node: Node, space: Space, part: bool = False) -> Kernel:
        """The kernel for a node: that of its latest operand; small ones gather where none waits."""
        found = (self.owner.get(s) for s, _ in self.reads(node, space, part))
        sources = {k for k in found if k is not None}
        if small(node) and not part:
            depths = self.depths()
            before = {*sources, self.part_of[node]} if is_partial(node) else sources
            depth = max((depths[k] for k in before), default=-1) + 1
            candidates = [
                k
                for k in depths
                if not k.anchors
                and k.space.shape == space.shape
                and (not self.order.out_degree(k) or depth <= depths[k] or k in sources)
            ]
            candidates.sort(key=lambda k: k.number)
        else:
            candidates = sorted(sources, key=lambda k: -k.number)
        for kernel in candidates:
            if self.fits(node, kernel, part):
                return kernel
        return self.kernel(space)

    def depths(self) -> dict[Kernel, int]:
        """How many kernels run one after the other before each."""
        generations = nx.topological_generations(self.order)
        return {k: depth for depth, kernels in enumerate(generations) for k in kernels}

    def fits(self, node: Node, kernel: Kernel, part: bool) -> bool:
        """Whether a node can be computed in a kernel: shapes, registers, no cycle."""
        if kernel.way.apart or kernel.opaque:
            return False
        subject = node.inputs[0] if part else node
        if kernel.space.home(subject.shape) is None:
            return False
        rows = in_rows(node) or kernel.space.along_rows(subject.shape)
        if rows and (kernel.anchors or kernel.space.columns > LONGEST_ROW):
            return False
        if in_rows(node) and kernel.space.home(space_of(node).shape) is None:
            return False
        if part and any(map(is_outer, kernel.anchors)):
            return False
        if part and kernel.space.cut != len(kernel.space.shape) - 1 and reduction(node) != "all":
            return False
        if is_partial(node) and not part and nx.has_path(self.order, kernel, self.part_of[node]):
            return False
        stages = set()
        for source, at in self.reads(node, kernel.space, part):
            producer = self.owner.get(source)
            if producer is kernel:
                if at != kernel.space.home(source.shape):
                    return False
                stages.add(self.stage(kernel, source))
            elif producer is not None and nx.has_path(self.order, kernel, producer):
                return False
        return len(stages) <= 1 or node is kernel.joint

    def stage(self, kernel: Kernel, node: Node, part: bool = False) -> int:
        """After which of the kernel's anchors a value of its body is in registers."""
        last = len(kernel.anchors) - 1
        if last < 1 or node is kernel.joint:
            return last
        if node in kernel.anchors:
            return kernel.anchors.index(node)
        reads = self.reads(node, kernel.space, part)
        sources = [s for s, _ in reads if self.owner.get(s) is kernel]
        return max((self.stage(kernel, s) for s in sources), default=last)

    # --- sums of contractions -------------------------------------------------------------------

    def join_anchors(self, joint: Node) -> None:
        """Contractions that meet in a map share an accumulator, if it is affine in them."""
        anchors = [x for x in dict.fromkeys(joint.inputs) if self.joinable(x)]
        if not anchors:
            return
        first = anchors[0]
        anchors = [x for x in anchors if geometry(x) == geometry(first)]
        shared = [x for x in anchors if self.users[x] != {joint} or x in self.asked]
        anchors = [*shared[:1], *(x for x in anchors if x not in shared)]
        if len(anchors) < 2 or coefficients(joint, anchors) is None:
            return
        kernels = [self.owner[x] for x in anchors]
        heads = [k.adds[0] if k.adds else k for k in kernels]
        for group in (kernels, heads):
            if any(nx.has_path(self.order, j, k) for j in group for k in group if j is not k):
                return
        if len({h.way for h in heads}) > 1:
            return
        if heads[0] is kernels[0]:
            self.merge(kernels).joint = joint
            return
        kernel = self.merge(kernels)
        if heads[0].way.splits > 1:
            kernel.adds = [head := self.merge(heads)]
            if not shared:
                head.joint, kernel.body = joint, []

    def share_loops(self) -> None:
        """A contraction V⋆ȧ goes where W⋆ȧ + V⋆a is computed: no operand is read for it again."""
        for kernel in [k for k in self.order if k.joint and len(k.anchors) == 2]:
            for other in [k for k in self.order if len(k.anchors) == 1 and not k.way.apart]:
                (q,) = other.anchors
                both = [
                    next((a for a in kernel.anchors if self.operand(a, i) is self.operand(q, i)), q)
                    for i in (0, 1)
                ]
                if (
                    not kernel.way.apart
                    and not kernel.opaque
                    and q not in both
                    and both[0] is not both[1]
                    and geometry(q) == geometry(both[0])
                    and not nx.has_path(self.order, kernel, other)
                    and not nx.has_path(self.order, other, kernel)
                ):
                    kernel.anchors = both
                    self.merge([other, kernel])
                    break

    def share_reads(self) -> None:
        """Kernels of a launch that read the same elements of a value read it once, as one."""
        for launch in launches(self.ordered(), self.order):
            shared = nx.Graph()
            for kernel in launch:
                if not kernel.anchors and not kernel.adds:
                    like = kernel.space.shape, kernel.space.cut, kernel.whole_rows
                    for source, at in self.sources(kernel):
                        if not small(source) and at == kernel.space.home(source.shape):
                            shared.add_edge(kernel, (source, like))
            for group in nx.connected_components(shared):
                kernels = [k for k in launch if k in group]
                if len(kernels) > 1:
                    self.merge(kernels)

    def operand(self, anchor: Node, i: int) -> Node:
        """What a contraction multiplies."""
        return self.operands[anchor][i]

    def joinable(self, node: Node) -> bool:
        """Whether a node is a contraction alone in its kernel."""
        kernel = self.owner.get(node)
        if kernel is None or node.op not in CONTRACTIONS:
            return False
        return [a for k in (kernel.adds or [kernel]) for a in k.anchors] == [node]

    def merge(self, kernels: Sequence[Kernel]) -> Kernel:
        """One kernel of several, in place of the last."""
        last = kernels[-1]
        last.anchors = [a for k in kernels for a in k.anchors]
        last.body = [n for k in kernels for n in k.body]
        last.partials = [n for k in kernels for n in k.partials]
        last.adds = [head for k in kernels for head in k.adds]
        for kernel in kernels[:-1]:
            self.order.add_edges_from((k, last) for k in self.order.predecessors(kernel))
            self.order.add_edges_from((last, k) for k in self.order.successors(kernel))
            self.order.remove_node(kernel)
        self.owner = {n: last if k in kernels else k for n, k in self.owner.items()}
        self.part_of = {n: last if k in kernels else k for n, k in self.part_of.items()}
        return last

    # --- the whole ------------------------------------------------------------------------------

    def ordered(self) -> list[Kernel]:
        """Kernels in execution order."""
        return list(nx.lexicographical_topological_sort(self.order, key=lambda k: k.number))

    def sources(self, kernel: Kernel) -> dict[tuple[Node, At], None]:
        """Values that a kernel's nodes read, and where."""
        found: dict[tuple[Node, At], None] = {}
        for node in kernel.nodes:
            found |= self.reads(node, kernel.space)
        for node in kernel.partials:
            found |= self.reads(node, kernel.space, part=True)
        return found

    def finish(self) -> Schedule:
        """Reads, writes and order, now that every node has its place."""
        for node in self.asked:
            if node in self.owner:
                self.owner[node].writes[node] = None
        for kernel in self.order:
            found = [x for a in kernel.anchors for x in self.operands[a][:2]]
            if not kernel.way.apart:
                found += [source for source, _ in self.sources(kernel)]
            for source in found:
                producer = self.owner.get(source)
                if producer is not kernel:
                    kernel.reads[source] = None
                    if producer is not None:
                        producer.writes[source] = None
        kernels = self.ordered()
        return Schedule(
            self.graph, kernels, launches(kernels, self.order), self.looked_up, self.leaf,
            self.stage, self.part_of, self.operands,
        )  # fmt: skip


def launches(kernels: Sequence[Kernel], order: nx.DiGraph) -> list[list[Kernel]]:
    """Kernels without contractions that are equally deep share a launch; so do all last ones."""
    depth: dict[Kernel, float] = {}
    together: dict[tuple[float, int], list[Kernel]] = {}
    for kernel in kernels:
        depth[kernel] = max((depth[k] + 1 for k in order.predecessors(kernel)), default=0)
        if kernel.anchors:
            together[depth[kernel], kernel.number + 1] = [kernel]
        else:
            last = depth[kernel] > 0 and not order.out_degree(kernel)
            together.setdefault((math.inf if last else depth[kernel], 0), []).append(kernel)
    return [together[key] for key in sorted(together)]


def schedule(graph: Graph, batch: int = 1, ways: Ways = lambda *_: Way()) -> Schedule:
    """Kernels for a graph.

    Args:
        graph: what to compute.
        batch: the batch size, for choices by size.
        ways: how a contraction is computed at a batch size.
    """
    return _Scheduler(graph, batch, ways).run()
