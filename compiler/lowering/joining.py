"""Kernels that become one: contractions of a sum, products of one operand, readers of one value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations

import networkx as nx

from ..graph.ir import Node
from .kernel import Kernel
from .operands import coefficients, loop_signature
from .placement import Placement
from .space import small


def join_anchors(placement: Placement, joint: Node) -> None:
    """Lets contractions that meet in a map share an accumulator, if it is affine in them."""
    anchors = _that_meet(placement, joint)
    if len(anchors) < 2 or coefficients(joint, anchors) is None:
        return
    kernels = [placement.owner[x] for x in anchors]
    heads = [k.adds[0] if k.adds else k for k in kernels]
    if len({h.way for h in heads}) > 1 or _any_waits(placement, kernels, heads):
        return
    if heads[0] is kernels[0]:
        placement.merge(kernels, joint)
        return
    kernel = placement.merge(kernels)
    if heads[0].way.splits > 1:
        shared = any(_is_shared(placement, x, joint) for x in anchors)
        kernel.adds = [placement.merge(heads, None if shared else joint)]
        if not shared:
            kernel.body = []


def _is_shared(placement: Placement, anchor: Node, joint: Node) -> bool:
    """Whether somebody besides the joint map needs the value of a contraction."""
    return placement.reading.users[anchor] != {joint} or anchor in placement.reading.asked


def _that_meet(placement: Placement, joint: Node) -> list[Node]:
    """Returns contractions of one loop that a map reads; only the first may be needed elsewhere."""
    anchors = [x for x in dict.fromkeys(joint.inputs) if placement.is_alone(x)]
    anchors = [x for x in anchors if loop_signature(x) == loop_signature(anchors[0])]
    shared = [x for x in anchors if _is_shared(placement, x, joint)]
    return [*shared[:1], *(x for x in anchors if x not in shared)]


def _any_waits(placement: Placement, *groups: Sequence[Kernel]) -> bool:
    """Whether a kernel of a group waits for another one of it."""
    return any(
        placement.order.reaches(first, last)
        for group in groups
        for first, last in permutations(group, 2)
    )


def share_loops(placement: Placement) -> None:
    """Moves a contraction V⋆ȧ to where W⋆ȧ + V⋆a is computed: no operand is read again for it."""
    operands = placement.reading.operands
    alone: dict[tuple[Node, ...], list[Kernel]] = {}
    for kernel in placement.order:
        if len(kernel.anchors) == 1 and not (kernel.way.apart or kernel.stream):
            alone.setdefault(tuple(operands[kernel.anchors[0]][:2]), []).append(kernel)
    for kernel in [k for k in placement.order if k.joint and len(k.anchors) == 2]:
        if kernel.way.apart or kernel.opaque:
            continue
        first, second = kernel.anchors
        crossed = [(operands[x][0], operands[y][1]) for x, y in permutations((first, second))]
        others = [other for pair in dict.fromkeys(crossed) for other in alone.get(pair, ())]
        for other in sorted(others, key=lambda k: k.number):
            both = _operands_from(placement, other.anchors[0], kernel)
            if both is not None and not _any_waits(placement, (kernel, other)):
                alone[tuple(operands[other.anchors[0]][:2])].remove(other)
                kernel.anchors = both
                placement.merge([other, kernel])
                break


def _operands_from(placement: Placement, node: Node, kernel: Kernel) -> list[Node] | None:
    """Returns the anchors that read a contraction's left and right operand, if those are two."""
    operands = placement.reading.operands
    both = [
        next((a for a in kernel.anchors if operands[a][i] is operands[node][i]), node)
        for i in (0, 1)
    ]
    apart = node not in both and both[0] is not both[1]
    return both if apart and loop_signature(node) == loop_signature(both[0]) else None


def share_reads(placement: Placement) -> None:
    """Makes kernels of a launch that read the same elements of a value one, to read it once."""
    for launch in placement.order.launches():
        place = {kernel: i for i, kernel in enumerate(launch)}
        shared = nx.Graph()
        for kernel in launch:
            shared.add_edges_from((kernel, value) for value in _read_at_home(placement, kernel))
        for group in nx.connected_components(shared):
            kernels = [k for k in group if isinstance(k, Kernel)]
            if len(kernels) > 1:
                placement.merge(sorted(kernels, key=place.__getitem__))


def _read_at_home(placement: Placement, kernel: Kernel) -> Iterator[tuple[object, ...]]:
    """Yields what a kernel without contractions reads as it lies, and how: readers alike join."""
    if kernel.anchors or kernel.adds:
        return
    like = kernel.space, kernel.whole_rows
    for source, at in placement.read_by(kernel):
        if not small(source) and at == kernel.space.home(source.shape):
            yield source, *like
