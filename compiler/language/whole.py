"""Values of a whole batch, of which a program sees a part: what ranks hold, one part each.

Graphs say N for the batch size, in shapes and in numbers. Where the batch is a part of a larger
one, shapes stay those of the part, and every number is that of the whole, which is given. What sums
over samples sums over those of the part: where other values depend on it, ranks are summed over.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from ..graph import ops
from ..graph.errors import NewtritonError
from ..graph.ir import LEAVES, Node, Op, batch_axis, made_at, topological
from ..graph.scalar import BATCH, var
from ..graph.sums import SUMMING, is_sum, with_number

SAMPLES = ops.input_("samples", ())  # the leaf of how many samples the whole batch has


def of_whole(
    outputs: Iterable[Node],
    known: Callable[[Node], bool] = lambda node: False,
    *,
    summed: bool,
) -> dict[Node, Node]:
    """Returns by node what takes its place where the batch is a part of a whole one.

    Args:
        outputs: the nodes below which to look.
        known: the nodes that stay as they are, and all below them.
        summed: whether sums over samples are summed over ranks, too; otherwise the outputs are what
            a part contributes.

    Raises:
        NewtritonError: an op goes over samples and is no sum.
    """
    new: dict[Node, Node] = {}
    for node in topological(outputs, stop=known):
        if known(node) or (node.op in LEAVES and node.op is not Op.CONST):
            new[node] = node
            continue
        with made_at(node.place):
            inputs = tuple(new[x] for x in node.inputs)
            if summed:
                new[node] = _total(node, inputs)
            elif node.op is Op.CONCAT:
                parts = _parts(node, inputs)
                new[node] = ops.remake(node, parts)
            else:
                new[node] = with_number(node, inputs, SAMPLES)
    return new


def _total(node: Node, inputs: tuple[Node, ...]) -> Node:
    """Returns a node of which sums over samples are those of all ranks."""
    if not is_sum(node):
        return with_number(node, inputs, SAMPLES)
    if node.op not in SUMMING:
        raise NewtritonError(
            f"{node!r} mixes the samples of a batch, and is no sum over them: a batch cannot be "
            "taken in parts"
        )
    total = ops.all_sum(with_number(ops.remake(node, node.inputs[:2]), inputs[:2], SAMPLES))
    return ops.total([total, *(ops.broadcast(bias, node.shape) for bias in inputs[2:])])


def _parts(node: Node, inputs: tuple[Node, ...]) -> tuple[Node, ...]:
    """Returns what is joined: what is no sum over samples is contributed in proportion to them."""
    sums = [any(map(is_sum, topological([x]))) for x in node.inputs]
    if not any(sums):
        return inputs
    share = var(0) * BATCH / var(1)
    return tuple(
        x if is_part else ops.map_(share, x, ops.broadcast(SAMPLES, x.shape))
        for x, is_part in zip(inputs, sums, strict=True)
    )


def is_whole(node: Node, given: Collection[Node]) -> bool:
    """Whether a value is the same on all ranks, and not what a rank contributes to it.

    Args:
        node: the value.
        given: the leaves that all ranks are given alike.
    """
    found: dict[Node, bool] = {}
    for n in topological([node], stop=lambda n: n.op is Op.ALL_SUM):
        if n.op is Op.INPUT:
            found[n] = n in given
        elif n.op in LEAVES or n.op is Op.ALL_SUM:
            found[n] = True
        else:
            found[n] = batch_axis(n.shape) is None and all(found[x] for x in n.inputs)
    return found[node]
