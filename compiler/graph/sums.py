"""Sums over samples: where a graph has them, so that a batch may be taken in parts.

A value without the batch's axis that is made of values with it is a sum over the samples, the only
way in which ops make one. With the number of all samples as a leaf wherever it is a number, a part
of a batch gives its part of every such sum. What is made of sums alone needs no samples any more,
and what samples and sums make together is summed in a further pass: the recursion of KFRA through
pools that overlap is the only one that needs more passes than one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from . import ops, scalar
from .errors import NewtritonError
from .ir import Node, Op, batch_axis, rewrite, topological
from .program import Input, Output

SUMMING = frozenset({
    Op.REDUCE_SUM, Op.MATMUL, Op.CONV_WEIGHT_GRAD, Op.GRAM, Op.PATCH_GRAM, Op.SCATTER_ROWS,
})  # fmt: skip


@dataclass(frozen=True, eq=False)
class Sum(Input, Output):
    """A sum over samples on the way to a program's results.

    Attributes:
        i: its number.
    """

    i: int
    kind = "sum"


@dataclass(frozen=True)
class Stages:
    """Values in terms of sums over samples.

    Attributes:
        sums: by pass the sums that are made in it, from samples and the sums of earlier passes.
        rest: the values, from sums alone.
    """

    sums: tuple[Mapping[Output, Node], ...]
    rest: Mapping[Output, Node]


def is_sum(node: Node) -> bool:
    """Whether a value is a sum over the samples of a batch."""
    return batch_axis(node.shape) is None and any(
        batch_axis(x.shape) is not None for x in node.inputs
    )


def mixing(outputs: Iterable[Node]) -> Node | None:
    """Returns the first value below `outputs` that depends on all samples of a batch, or None."""
    return next((n for n in topological(outputs) if is_sum(n) or _counts(n)), None)


def _numbers(node: Node) -> dict[str, scalar.Expr]:
    """Returns the expressions among a node's attributes."""
    return {k: v for k, v in node.attributes.items() if isinstance(v, scalar.Expr)}


def _counts(node: Node) -> bool:
    """Whether a node reads the number of samples as a number."""
    found = _numbers(node).values()
    return any(scalar.BATCH in scalar.subexpressions([expr]) for expr in found)


def with_samples(outputs: Mapping[str, Node], samples: Node) -> dict[str, Node]:
    """Returns the same values with a scalar leaf for the number of samples."""
    return rewrite(outputs, lambda node, inputs: with_number(node, inputs, samples))


def with_number(node: Node, inputs: tuple[Node, ...], samples: Node) -> Node:
    """Returns a node on other inputs, with a scalar leaf for the number of samples."""
    if not _counts(node):
        return ops.remake(node, inputs)
    (name, expr), *_ = _numbers(node).items()
    if node.op is Op.CONST:
        return ops.map_(scalar.with_batch(expr, scalar.var(0)), samples)
    leaf, last = ops.broadcast(samples, node.shape), scalar.var(len(inputs))
    if node.op is Op.MAP:
        return ops.map_(scalar.with_batch(expr, last), *inputs, leaf)
    attributes: dict[str, Any] = {**node.attributes, name: scalar.ONE}
    plain = ops.make(node.op, *inputs, **attributes)
    factor = scalar.with_batch(expr, scalar.var(1))
    return ops.map_(scalar.var(0) * factor, plain, leaf)


def in_stages(outputs: Mapping[Output, Node]) -> Stages:
    """Returns values in terms of sums over samples, see `with_samples`.

    Raises:
        NewtritonError: an op is no sum over samples, although its value has no samples.
    """
    new, depth = dict[Node, Node](), dict[Node, int]()
    passes: list[dict[Output, Node]] = []
    count = 0
    for node in topological(outputs.values()):
        new[node] = ops.remake(node, tuple(new[x] for x in node.inputs))
        depth[node] = at = max((depth[x] for x in node.inputs), default=0)
        if not is_sum(node):
            continue
        if node.op not in SUMMING:
            raise NewtritonError(f"{node!r} is no sum over samples: take the batch whole")
        key, count = Sum(count), count + 1
        if at == len(passes):
            passes.append({})
        passes[at][key] = new[node]
        new[node], depth[node] = ops.input_(str(key), node.shape), at + 1
    return Stages(tuple(passes), {key: new[node] for key, node in outputs.items()})
