"""A block of a stream as a graph of its own: some samples, some heads, some rows of each.

All axes of a wide value but that of its columns are cut, and with them the axes of other values
that go along them. So a block sees whole rows, up to what a causal order hides; what it gives is a
part of a value along the axes that are cut, and a term of a sum where one of them is summed over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..graph import ops, scalar
from ..graph.ir import Graph, N, Node, Op, Shape, is_batched
from .hidden import mask_of, vanishes
from .streams import Stream, wide_of
from .wide import trailing

Cut = tuple[int | None, ...]  # by axis of a value, the axis of the stream's shape that it is cut by
Sizes = tuple[int, ...]  # by axis of the stream's shape, how much of it a block has


@dataclass(frozen=True)
class Leaf:
    """What a block reads of a value.

    Attributes:
        of: the value.
        cut: how its axes are cut; whole where they are not.
    """

    of: Node
    cut: Cut


@dataclass(frozen=True)
class Sink:
    """What a block gives of a value.

    Attributes:
        of: the value.
        cut: how its axes are cut.
        summed: whether the blocks' contributions are added, for a cut axis has been summed over.
    """

    of: Node
    cut: Cut
    summed: bool


@dataclass(frozen=True)
class Block:
    """A block as a graph.

    Attributes:
        graph: what is computed; its outputs stand in the order of the stream's sinks.
        leaves: the leaves of the graph, and what they are.
    """

    graph: Graph
    leaves: Mapping[Node, Leaf]


class Blocks:
    """The blocks of a stream.

    Args:
        stream: what is computed.

    Attributes:
        mask: what hides columns that a block needs not have, if there is such a mask.
        sinks: what every block gives.
    """

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.mask = mask_of(stream)
        wide = wide_of(stream)
        if self.mask is not None and not vanishes(stream, self.mask, stream.writes, wide):
            self.mask = None
        columns = len(stream.shape) - 1
        self._cut: Cut = (*range(columns), columns if self.mask else None)
        self._inside = set(stream.nodes)
        self._cuts: dict[Node, Cut] = {}
        self._summed: set[Node] = set()
        self._operands = {node: self._follow(node) for node in stream.nodes}
        self.sinks = [Sink(n, self._cuts[n], n in self._summed) for n in stream.writes]

    @cached_property
    def elements(self) -> int:
        """The elements of the widest value in a row."""
        return max(self.whole(n) for n in wide_of(self.stream))

    def whole(self, node: Node) -> int:
        """Returns the elements of a value over its columns and what comes before the cut axes."""
        axes = zip(node.shape, self._cuts[node], strict=True)
        return math.prod(d for d, by in axes if not self._is_split(by))

    def block(self, sizes: Sizes) -> Block:
        """Returns the graph of a block of a size; that of its samples is the batch size."""
        leaves: dict[Leaf, Node] = {}
        new: dict[Node, Node] = {}

        of_block = [
            N if is_batched(d) else n for d, n in zip(self.stream.shape, sizes, strict=False)
        ]

        def size(shape: Shape, cut: Cut) -> Shape:
            axes = zip(shape, cut, strict=True)
            return tuple(d if by is None else of_block[by] for d, by in axes)

        def leaf(of: Node, cut: Cut) -> Node:
            key = Leaf(of, cut)
            if key not in leaves:
                name, kind = f"x{len(leaves)}", of.type.kind
                leaves[key] = ops.input_(name, size(of.shape, cut), kind)
            return leaves[key]

        for node in self.stream.nodes:
            operands = [
                new[x] if x in self._inside else leaf(x, cut)
                for x, cut in zip(node.inputs, self._operands[node], strict=True)
            ]
            shape = size(node.shape, self._cuts[node])
            new[node] = self._remade(node, operands, shape, leaf)
        outputs = {str(i): new[n] for i, n in enumerate(self.stream.writes)}
        return Block(Graph("block", outputs), {n: key for key, n in leaves.items()})

    @staticmethod
    def _remade(
        node: Node, operands: list[Node], shape: Shape, leaf: Callable[[Node, Cut], Node]
    ) -> Node:
        """Returns a node on the operands of a block; the batch size is that of the whole."""
        if node.op is Op.BROADCAST:
            return ops.broadcast(operands[0], shape, node["axes"])
        if node.op is Op.MAP and scalar.BATCH in scalar.subexpressions([node["expr"]]):
            number = ops.broadcast(leaf(ops.const(scalar.BATCH), ()), shape)
            expr = scalar.with_batch(node["expr"], scalar.var(len(operands)))
            return ops.map_(expr, *operands, number)
        return ops.make(node.op, *operands, **node.attributes)

    # --- how values are cut ---------------------------------------------------------------------

    def _follow(self, node: Node) -> Sequence[Cut]:
        """Notes how a node's value is cut; returns how its operands are."""
        if node.op is Op.MATMUL:
            known = next((i for i in (0, 1) if node.inputs[i] in self._inside), None)
            return self._product(node) if known is None else self._contraction(node, known)
        return ops.rule_of(_RULES, node, "block")(self, node)

    def _wide_cut(self, node: Node) -> Cut:
        """Returns how a wide value is cut, whatever axes come before the stream's."""
        return (*[None] * (len(node.shape) - len(self._cut)), *self._cut)

    def _map(self, node: Node) -> Sequence[Cut]:
        known = [self._cuts[x] for x in node.inputs if x in self._inside]
        wide = trailing(node.shape, frozenset({self.stream.shape})) is not None
        self._cuts[node] = cut = self._wide_cut(node) if wide else known[0]
        return [cut] * len(node.inputs)

    def _broadcast(self, node: Node) -> Sequence[Cut]:
        self._cuts[node] = cut = self._wide_cut(node)
        return [tuple(by for i, by in enumerate(cut) if i not in node["axes"])]

    def _one_hot(self, node: Node) -> Sequence[Cut]:
        self._cuts[node] = cut = self._wide_cut(node)
        return [cut[:-1]]

    def _reduce_sum(self, node: Node) -> Sequence[Cut]:
        cut, axes = self._cuts[node.inputs[0]], node["axes"]
        self._cuts[node] = tuple(by for i, by in enumerate(cut) if i not in axes)
        if any(self._is_split(cut[axis]) for axis in axes):
            self._summed.add(node)
        return [cut]

    def _of_row(self, node: Node) -> Sequence[Cut]:
        cut = self._cuts[node.inputs[0]]
        self._cuts[node] = cut[:-1]
        return [cut]

    def _sample(self, node: Node) -> Sequence[Cut]:
        cut = self._cuts[node.inputs[0]]
        self._cuts[node] = draws = (*[None] * (len(node.shape) - 1), cut[0])
        return [cut, draws]

    def _product(self, node: Node) -> Sequence[Cut]:
        """A wide product x y: its rows are those of x, its columns those of y."""
        self._cuts[node] = cut = self._wide_cut(node)
        x, y, *bias = node.inputs
        rows = _matrix(x, cut[:-2], cut[-2], None, node["transpose_a"])
        columns = _matrix(y, cut[:-2], None, cut[-1], node["transpose_b"])
        return [rows, columns, *((cut[-1],) for _ in bias)]

    def _contraction(self, node: Node, known: int) -> Sequence[Cut]:
        """A product with a wide operand, over its columns or over its rows."""
        cut, turned = self._cuts[node.inputs[known]], (node["transpose_a"], node["transpose_b"])
        first, second = cut[-2:][::-1] if turned[known] else cut[-2:]
        kept, summed = (first, second) if known == 0 else (second, first)
        lead = (*[None] * (len(node.shape) - len(cut)), *cut[:-2])
        other = node.inputs[1 - known]
        if known == 0:
            self._cuts[node] = (*lead, kept, None)
            operands = [cut, _matrix(other, lead, summed, None, turned[1])]
        else:
            self._cuts[node] = (*lead, None, kept)
            operands = [_matrix(other, lead, None, summed, turned[0]), cut]
        if self._is_split(summed):
            self._summed.add(node)
        return operands

    def _is_split(self, by: int | None) -> bool:
        """Whether an axis is cut so that what is summed over it comes from several blocks."""
        return by is not None and by < len(self._cut) - 1


def _matrix(x: Node, lead: Cut, row: int | None, column: int | None, turned: bool) -> Cut:
    """Returns how the operand of a product is cut; it may have fewer leading axes."""
    own = lead[len(lead) - (len(x.shape) - 2) :]
    return (*own, column, row) if turned else (*own, row, column)


_RULES: dict[Op, Callable[[Blocks, Node], Sequence[Cut]]] = {
    Op.MAP: Blocks._map,
    Op.BROADCAST: Blocks._broadcast,
    Op.ONE_HOT: Blocks._one_hot,
    Op.REDUCE_SUM: Blocks._reduce_sum,
    Op.ROW_MAX: Blocks._of_row,
    Op.LOG_SUM_EXP: Blocks._of_row,
    Op.SAMPLE: Blocks._sample,
}
