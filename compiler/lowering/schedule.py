"""The scheduler: it decides which nodes share a kernel.

Nodes are placed one by one, operands first, into a kernel that computes one of their operands,
unless that would close a cycle. So every value is computed once, and written only if another kernel
reads it or somebody outside asks for it. Then products of operands that another kernel reads move
there, and kernels that do not wait for each other and read one value become one.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..graph.ir import Graph, Node, Op
from ..streaming.streams import Stream
from .joining import join_anchors, share_loops, share_reads
from .kernel import ALONE, ANCHORS, Schedule
from .placement import Placement
from .reading import Reading, Ways, in_blocks
from .space import home_space, in_rows_of_last_axis, is_partial, small, space_of
from .tile import in_loop


def schedule(graph: Graph, batch: int = 1, ways: Ways = lambda *_: ALONE) -> Schedule:
    """Returns kernels for a graph, and their launches.

    Args:
        graph: what to compute.
        batch: the batch size that `ways` is asked about.
        ways: how a contraction is computed at a batch size.

    Examples:
        >>> from newtriton.compiler.graph import ops, scalar
        >>> x, w = ops.input_("x", (8, 5)), ops.param("w", (4, 5))
        >>> s = ops.matmul(x, w, tb=True)
        >>> print(schedule(Graph("layer", {"a": ops.map_(scalar.tanh(scalar.var(0)), s)})))
        layer: 1 kernels, 1 launches
            0  8×4                matmul map
    """
    placement = Placement(Reading(graph, batch, ways))
    place_all(placement)
    share_loops(placement)
    share_reads(placement)
    note_memory(placement)
    return _finished(placement)


def place_all(placement: Placement) -> None:
    """Places every node; numbers and vectors only when somebody needs them.

    So what a scalar waits for is what it is computed from, not what happened to come before.
    """
    reading = placement.reading
    for node in reading.nodes:
        if is_partial(node) and node not in reading.stream_of:
            _place_parts(placement, node)
        elif not (small(node) or reading.looked_up(node)):
            _require(placement, [node])
    _require(placement, (x for x in reading.asked if not reading.leaf(x)))


def _require(placement: Placement, values: Iterable[Node]) -> None:
    """Places values, behind what they need of what is not placed yet."""
    reading, owner = placement.reading, placement.owner
    waiting = [*values][::-1]
    while waiting:
        node = waiting[-1]
        sources = [s for s, _ in reading.sources(node, home_space(node))]
        needed = (*reading.whole(node), *sources, *placement.earlier(node))
        missing = [x for x in needed if x not in owner and not reading.leaf(x)]
        if node in owner or not missing:
            waiting.pop()
        if node not in owner:
            waiting += missing[::-1]
            if not missing:
                _place(placement, node, sources)


def _place(placement: Placement, node: Node, sources: Iterable[Node]) -> None:
    """Places a node: a contraction starts a kernel, others go into the best that they fit."""
    if (stream := placement.reading.stream_of.get(node)) is not None:
        return _place_stream(placement, stream)
    if node.op is Op.MAP:
        join_anchors(placement, node)
    if node.op in ANCHORS:
        reading = placement.reading
        kernel = placement.kernel(space_of(node), [node], reading.ways[node])
        placement.wait(kernel, (*reading.operands[node], *placement.earlier(node)))
        if kernel.way.apart:
            kernel = placement.kernel(kernel.space, adds=kernel)
    else:
        kernel = placement.choose(node, home_space(node))
    placement.put(node, kernel)
    placement.wait(kernel, sources)
    if is_partial(node):
        placement.order.wait(kernel, placement.part_of[node])


def _place_stream(placement: Placement, stream: Stream) -> None:
    """Places all that leaves a stream in a kernel of its own."""
    kernel = placement.kernel(in_rows_of_last_axis(stream.shape), stream.writes)
    kernel.stream, kernel.views = stream, placement.reading.views[stream]
    kernel.writes, kernel.through = dict.fromkeys(stream.writes), in_blocks(stream)
    for node in stream.writes:
        placement.put(node, kernel)
    placement.wait(kernel, placement.reading.whole(stream.writes[0]))


def _place_parts(placement: Placement, node: Node) -> None:
    """Places the parts of a sum in a kernel that computes the terms."""
    space, reading = space_of(node), placement.reading
    sources = [s for s, _ in reading.sources(node, space, part=True)]
    _require(placement, (s for s in sources if not reading.leaf(s)))
    kernel = placement.choose(node, space, part=True)
    placement.put_parts(node, kernel)
    placement.wait(kernel, sources)


def note_memory(placement: Placement) -> None:
    """Notes which values kernels load and store, now that every node has its place."""
    owner, operands = placement.owner, placement.reading.operands
    for node in placement.reading.asked:
        if node in owner:
            owner[node].writes[node] = None
    for kernel in placement.order:
        whole = [x for a in kernel.anchors for x in operands.get(a, ())[:2]]
        whole += [view.of for view in kernel.views if view.of.op is not Op.CONST]
        found: dict[Node, int | None] = dict.fromkeys(whole)
        for source, at in () if kernel.way.apart else placement.read_by(kernel):
            places = found.get(source, 0)
            found[source] = None if places is None or in_loop(at) else places + 1
        for source, places in found.items():
            producer = owner.get(source)
            if producer is not kernel:
                kernel.reads[source] = places
                if producer is not None:
                    producer.writes[source] = None


def _finished(placement: Placement) -> Schedule:
    reading, order = placement.reading, placement.order
    kernels = order.in_sequence()
    return Schedule(
        graph=reading.graph,
        kernels=kernels,
        launches=order.launches(),
        leaves=reading.leaves(),
        looked_up=reading.all_looked_up(),
        operands=reading.operands,
        kernel_of=placement.owner,
        accumulated_by={a: k for k in kernels for a in k.anchors},
        part_of=placement.part_of,
        stages=placement.stages,
    )
