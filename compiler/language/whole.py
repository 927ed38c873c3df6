"""Values of a whole batch, of which a program sees a part: what ranks hold, one part each.

Graphs say N for the batch size, in shapes and in numbers. Where the batch is a part of a larger
one, shapes stay those of the part, and every number is that of the whole, which is given. What sums
over samples sums over those of the part: where other values depend on it, ranks are summed over.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from ..graph import ops, scalar
from ..graph.errors import NewtritonError
from ..graph.ir import LEAVES, Node, Op, batch_axis, made_at, topological
from ..graph.scalar import BATCH, Expr, var

SUMS = frozenset(
    {Op.REDUCE_SUM, Op.MATMUL, Op.CONV_WEIGHT_GRAD, Op.GRAM, Op.PATCH_GRAM, Op.SCATTER_ROWS}
)


def samples() -> Node:
    """Returns the leaf of the number of samples of the whole batch."""
    return ops.input_("samples", ())


def normaliser() -> Node:
    """Returns the leaf of what the sum of the whole batch's losses is divided by."""
    return ops.input_("normaliser", ())


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
            goes_over = summed and _goes_over_samples(node)
            new[node] = _total(node, inputs) if goes_over else _counted(node, inputs)
    return new


def _goes_over_samples(node: Node) -> bool:
    """Whether an op sums over the samples."""
    batched = any(batch_axis(x.shape) is not None for x in node.inputs)
    if not batched or batch_axis(node.shape) is not None:
        return False
    if node.op not in SUMS:
        raise NewtritonError(
            f"{node!r} mixes the samples of a batch, and is no sum over them: a batch cannot be "
            "taken in parts"
        )
    return True


def _total(node: Node, inputs: tuple[Node, ...]) -> Node:
    """Returns a sum over samples of all ranks."""
    bias = inputs[2:]
    found, factor = _without_scale(ops.remake(node, inputs[:2]))
    total = ops.all_sum(found)
    total = total if factor is None else _times(total, factor)
    return ops.total([total, *(ops.broadcast(b, node.shape) for b in bias)])


def _counted(node: Node, inputs: tuple[Node, ...]) -> Node:
    """Returns a node whose numbers of the batch size are the whole's."""
    if node.op is Op.CONST and _reads_batch(node["value"]):
        return _times(ops.const(1.0), node["value"])
    if node.op is Op.MAP and _reads_batch(node["expr"]):
        size = ops.broadcast(samples(), node.shape)
        return ops.map_(_given(node["expr"], len(inputs)), *inputs, size)
    found, factor = _without_scale(ops.remake(node, inputs))
    return found if factor is None else _times(found, factor)


def _without_scale(node: Node) -> tuple[Node, Expr | None]:
    """Returns a node and a factor in the batch size that was part of it; None for none."""
    factor = node.attributes.get("scale")
    if factor is None or not _reads_batch(factor):
        return node, None
    return ops.make(node.op, *node.inputs, **{**node.attributes, "scale": scalar.ONE}), factor


def _times(x: Node, factor: Expr) -> Node:
    """Returns x times a number of the whole batch's size."""
    return ops.map_(var(0) * _given(factor, 1), x, ops.broadcast(samples(), x.shape))


def _reads_batch(expr: Expr) -> bool:
    """Whether an expression has the batch size in it."""
    return BATCH in scalar.subexpressions([expr])


def _given(expr: Expr, place: int) -> Expr:
    """Returns an expression with an operand in place of the batch size."""
    new: dict[Expr, Expr] = {}
    for e in scalar.subexpressions([expr]):
        new[e] = var(place) if e is BATCH else scalar.rebuild(e, [new[a] for a in e.args])
    return new[expr]


def is_whole(node: Node, given: Collection[Node]) -> bool:
    """Whether a value is the same on all ranks, and not what a rank contributes to it.

    Args:
        node: the value.
        given: the leaves that all ranks are given alike.
    """
    alike: Mapping[Node, bool]
    found: dict[Node, bool] = {}
    for n in topological([node], stop=lambda n: n.op is Op.ALL_SUM):
        if n.op is Op.ALL_SUM or n.op in (Op.PARAM, Op.CONST):
            found[n] = True
        elif n.op is Op.INPUT:
            found[n] = n in given
        else:
            found[n] = batch_axis(n.shape) is None and all(found[x] for x in n.inputs)
    alike = found
    return alike[node]
