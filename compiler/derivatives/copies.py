"""A leading axis of copies: one graph evaluated for several cotangents at once.

Sampled labels, and the columns of a square root of B, ride through one backward pass as an axis in
front of the batch. Batch statistics stay those of the batch: copies are never more samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..graph import ops
from ..graph.errors import MissingRule
from ..graph.ir import Node, Op, topological

Rule = Callable[[Node, tuple[Node, ...], tuple[bool, ...], int], Node]


def _everywhere(
    node: Node, inputs: tuple[Node, ...], copied: tuple[bool, ...], count: int
) -> tuple[Node, ...]:
    """The inputs, those without copies repeated."""
    return tuple(
        x if is_copied else ops.broadcast(x, (count, *x.shape), (0,))
        for x, is_copied in zip(inputs, copied, strict=True)
    )


def _as_it_is(*positions: int) -> Rule:
    """Ops that take any lead axes on the operands at `positions`, and copies nowhere else."""

    def rule(node: Node, inputs: tuple[Node, ...], copied: tuple[bool, ...], count: int) -> Node:
        if any(is_copied and i not in positions for i, is_copied in enumerate(copied)):
            raise MissingRule(f"no copies rule for {node!r} with copies of its operands {copied}")
        return ops.make(node.op, *inputs, **node.attributes)

    return rule


def _shifted(**change: Callable[[Any, int], Any]) -> Rule:
    """Ops whose attributes name axes or shapes: each is moved behind the axis of copies."""

    def rule(node: Node, inputs: tuple[Node, ...], copied: tuple[bool, ...], count: int) -> Node:
        attributes = {
            k: change[k](v, count) if k in change else v for k, v in node.attributes.items()
        }
        return ops.make(node.op, *_everywhere(node, inputs, copied, count), **attributes)

    return rule


def _map(node: Node, inputs: tuple[Node, ...], copied: tuple[bool, ...], count: int) -> Node:
    return ops.make(node.op, *_everywhere(node, inputs, copied, count), **node.attributes)


def _axes(axes: tuple[int, ...], count: int) -> tuple[int, ...]:
    return tuple(a + 1 for a in axes)


def _axis(axis: int, count: int) -> int:
    return axis + 1


def _shape(shape: tuple, count: int) -> tuple:
    return (count, *shape)


COPIES: dict[Op, Rule] = {
    Op.MAP: _map,
    Op.MATMUL: _as_it_is(0, 1),
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
    Op.ONE_HOT: _as_it_is(0),
    Op.SAMPLE: _as_it_is(1),
    Op.ROW_MAX: _as_it_is(0),
}


def copies(outputs: Iterable[Node], given: Mapping[Node, Node], count: int) -> dict[Node, Node]:
    """Nodes below `outputs` that depend on the keys of `given`, `count` copies on a leading axis.

    `given` replaces nodes by their copies, of shape (count, *shape).
    """
    result = dict(given)
    for node in topological(outputs, stop=given.__contains__):
        copied = tuple(i in result for i in node.inputs)
        if node not in result and any(copied):
            inputs = tuple(result.get(i, i) for i in node.inputs)
            result[node] = ops.rule_of(COPIES, node, "copies")(node, inputs, copied, count)
    return result
