"""Pairs of nodes that one PyTorch operator gives together: a table from one to its partner."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from ...compiler.graph import ops
from ...compiler.graph.ir import Node, Op
from .rules import conv_weight_grad, max_pool, rows_softmax


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


def _logarithm_and_softmax(node: Node, users: Users) -> Iterator[Step]:
    """Yields the step that takes the logarithm of a row's sum of exponentials from its softmax."""
    (x,) = node.inputs
    p = ops.softmax(x)
    if any(p in users.get(copied, ()) for copied in users.get(node, ())):
        yield Step([x], [node, p], rows_softmax)


PAIRS: dict[Op, Callable[[Node, Users], Iterator[Step]]] = {
    Op.ARGMAX_POOL: _maximum_and_place,
    Op.CONV_WEIGHT_GRAD: _weight_and_bias_gradient,
    Op.LOG_SUM_EXP: _logarithm_and_softmax,
}


def paired(nodes: Sequence[Node]) -> list[Step]:
    """Returns the steps that write two of the nodes at once."""
    users: dict[Node, list[Node]] = {}
    for node in nodes:
        for x in dict.fromkeys(node.inputs):
            users.setdefault(x, []).append(node)
    return [step for node in nodes if node.op in PAIRS for step in PAIRS[node.op](node, users)]
