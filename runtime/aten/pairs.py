"""Nodes that one PyTorch operator gives together, or without what they are written in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from ...compiler.graph import ops, scalar
from ...compiler.graph.ir import Node, Op
from .rules import chosen, conv_weight_grad, max_pool, rows_softmax, shifted_softmax


@dataclass(frozen=True)
class Step:
    """One operator, or a group of maps, of an executor.

    Attributes:
        reads: the nodes whose tensors it takes.
        writes: the nodes whose tensors it gives.
        call: takes the context and the tensors of `reads`, and returns those of `writes`.
        takes_out: whether `call` takes `out` as well, memory that its one value is written to.
    """

    reads: Sequence[Node]
    writes: Sequence[Node]
    call: Callable[..., Sequence[Tensor]]
    takes_out: bool = False


Users = Mapping[Node, Sequence[Node]]  # by node, the nodes that read it


def _maximum_and_place(node: Node, users: Users) -> Iterator[Step]:
    """Yields the steps that take a window's maximum along with its place."""
    (x,) = node.inputs
    for other in users.get(node, ()):
        if other.op is Op.GATHER_MAX and other.inputs == (x, node):
            yield Step([x], [other, node], max_pool(node))


def _weight_and_bias_gradient(node: Node, users: Users) -> Iterator[Step]:
    """Yields the steps that take the gradient of a bias along with that of the weights."""
    ct, x = node.inputs
    for other in users.get(ct, ()):
        if other.op is Op.REDUCE_SUM and other["axes"] == tuple(range(len(ct.shape) - 1)):
            yield Step([ct, x], [node, other], conv_weight_grad(node, with_bias=True))


_SHIFTED = scalar.var(0) - scalar.var(1)
_HITS = {
    scalar.branch(scalar.var(1), scalar.mul(*factors), 0.0)
    for factors in ((scalar.var(0),), (scalar.var(0), scalar.var(1)))
}


def _below_maximum(x: Node) -> Node | None:
    """Returns z where x is z less the maximum of its row, None elsewhere."""
    if x.op is not Op.MAP or x["expr"] is not _SHIFTED or x.inputs[1].op is not Op.BROADCAST:
        return None
    z, (largest,) = x.inputs[0], x.inputs[1].inputs
    along = (len(z.shape) - 1,)
    is_maximum = largest.op is Op.ROW_MAX and largest.inputs == (z,)
    return z if is_maximum and x.inputs[1]["axes"] == along else None


def _logarithm_and_softmax(node: Node, users: Users) -> Iterator[Step]:
    """Yields the step that takes the logarithm of a row's sum of exponentials from its softmax."""
    (x,) = node.inputs
    p, z = ops.softmax(x), _below_maximum(x)
    if any(p in users.get(copied, ()) for copied in users.get(node, ())):
        yield Step([z or x], [node, p], rows_softmax if z is None else shifted_softmax)


def _chosen(node: Node, users: Users) -> Iterator[Step]:
    """Yields the step that reads the element of each row that its label names."""
    (x,) = node.inputs
    hit = x.op is Op.MAP and x["expr"] in _HITS and x.inputs[1].op is Op.ONE_HOT
    if hit and node["axes"] == (len(x.shape) - 1,):
        row, hot = x.inputs
        z = _below_maximum(row)
        reads = [row] if z is None else [z, row.inputs[1].inputs[0]]
        yield Step([*hot.inputs, *reads], [node], chosen)


PAIRS: dict[Op, Callable[[Node, Users], Iterator[Step]]] = {
    Op.ARGMAX_POOL: _maximum_and_place,
    Op.CONV_WEIGHT_GRAD: _weight_and_bias_gradient,
    Op.LOG_SUM_EXP: _logarithm_and_softmax,
    Op.REDUCE_SUM: _chosen,
}


def paired(nodes: Sequence[Node]) -> list[Step]:
    """Returns the steps that stand for those of several nodes."""
    users: dict[Node, list[Node]] = {}
    for node in nodes:
        for x in dict.fromkeys(node.inputs):
            users.setdefault(x, []).append(node)
    known = {x for node in nodes for x in (node, *node.inputs)}
    found = (step for node in nodes if node.op in PAIRS for step in PAIRS[node.op](node, users))
    return [step for step in found if known.issuperset(step.reads)]
