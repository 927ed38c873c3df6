"""A leading axis of copies: one graph evaluated for several cotangents at once.

Sampled labels, and the columns of a square root of B, ride through one backward pass as an axis in
front of the batch. Batch statistics stay those of the batch: copies are never more samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..graph import ops
from ..graph.errors import MissingRule
from ..graph.ir import Dim, Node, Op, topological

Rule = Callable[[Node, tuple[Node, ...], tuple[bool, ...], int], Node]


def _everywhere(
    node: Node, inputs: tuple[Node, ...], copied: tuple[bool, ...], count: int
) -> tuple[Node, ...]:
    """Returns the inputs, of which those without copies are repeated."""
    return tuple(
        x if is_copied else ops.broadcast(x, (count, *x.shape), (0,))
        for x, is_copied in zip(inputs, copied, strict=True)
    )


def _as_it_is(*positions: int) -> Rule:
    """Returns the rule of an op that takes any lead axes on the operands at `positions`.

    No other operand may have copies.
    """

    def rule(node: Node, inputs: tuple[Node, ...], copied: tuple[bool, ...], count: int) -> Node:
        if any(is_copied and i not in positions for i, is_copied in enumerate(copied)):
            raise MissingRule(f"no copies rule for {node!r} with copies of its operands {copied}")
        return ops.make(node.op, *inputs, **node.attributes)

    return rule


def _shifted(**change: Callable[[Any, int], Any]) -> Rule:
    """Returns the rule of an op whose attributes name axes or shapes.

    Each attribute in `change` is moved behind the axis of copies by its function.
    """

    def rule(node: Node, inputs: tuple[Node, ...], copied: tuple[bool, ...], count: int) -> Node:
        attributes = {
            k: change[k](v, count) if k in change else v for k, v in node.attributes.items()
        }
        return ops.make(node.op, *_everywhere(node, inputs, copied, count), **attributes)

    return rule


def _map(node: Node, inputs: tuple[Node, ...], copied: tuple[bool, ...], count: int) -> Node:
    """Applies an elementwise op, all of whose operands need copies."""
    return ops.make(node.op, *_everywhere(node, inputs, copied, count), **node.attributes)


def _matmul(node: Node, inputs: tuple[Node, ...], copied: tuple[bool, ...], count: int) -> Node:
    """Multiplies with copies, which stand in front of the lead axes that only the other one has."""
    if any(copied[2:]):
        raise MissingRule(f"no copies rule for {node!r} with copies of its bias")
    lead = node.shape[:-2]
    operands = list(inputs)
    for i, x in enumerate(node.inputs[:2]):
        missing = len(lead) + 2 - ops.rank(x)
        if copied[i] and missing:
            shape = (count, *lead, *x.shape[-2:])
            operands[i] = ops.broadcast(inputs[i], shape, range(1, 1 + missing))
    return ops.make(node.op, *operands, **node.attributes)


def _axes(axes: tuple[int, ...], count: int) -> tuple[int, ...]:
    """Moves axes behind that of copies."""
    return tuple(a + 1 for a in axes)


def _axis(axis: int, count: int) -> int:
    """Moves an axis behind that of copies."""
    return axis + 1


def _shape(shape: tuple, count: int) -> tuple:
    """Puts the axis of copies in front of a shape."""
    return (count, *shape)


COPIES: dict[Op, Rule] = {
    Op.MAP: _map,
    Op.MATMUL: _matmul,
    Op.CONV: _as_it_is(0),
    Op.CONV_INPUT_GRAD: _as_it_is(0),
    Op.REDUCE_SUM: _shifted(axes=_axes),
    Op.BROADCAST: _shifted(axes=_axes, shape=_shape),
    Op.RESHAPE: _shifted(shape=_shape),
    Op.TRANSPOSE: _shifted(order=lambda order, count: (0, *_axes(order, count))),
    Op.SLICE: _shifted(axis=_axis),
    Op.PAD: _shifted(axis=_axis),
    Op.CONCAT: _shifted(axis=_axis),
    Op.AVG_POOL: _as_it_is(0),
    Op.AVG_UNPOOL: _as_it_is(0),
    Op.ARGMAX_POOL: _as_it_is(0),
    Op.GATHER_MAX: _as_it_is(0, 1),
    Op.SCATTER_MAX: _as_it_is(0, 1),
    Op.GATHER_ROWS: _as_it_is(0),
    Op.SCATTER_ROWS: _as_it_is(0),
    Op.ONE_HOT: _as_it_is(0),
    Op.SAMPLE: _as_it_is(1),
    Op.ROW_MAX: _as_it_is(0),
    Op.LOG_SUM_EXP: _as_it_is(0),
    Op.ALL_SUM: _as_it_is(0),
}


def copies(outputs: Iterable[Node], given: Mapping[Node, Node], count: Dim) -> dict[Node, Node]:
    """Returns the nodes below `outputs` that depend on given ones, each with its copies.

    Args:
        outputs: the nodes below which to look.
        given: nodes and what takes their place, their copies of shape (count, *shape).
        count: the number of copies.

    Raises:
        MissingRule: an op cannot have copies of these operands.
    """
    result = dict(given)
    for node in topological(outputs, stop=given.__contains__):
        copied = tuple(i in result for i in node.inputs)
        if node not in result and any(copied):
            inputs = tuple(result.get(i, i) for i in node.inputs)
            result[node] = ops.rule_of(COPIES, node, "copies")(node, inputs, copied, count)
    return result
