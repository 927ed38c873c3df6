"""What a schedule is made of: kernels, how their contractions are computed, and their launches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..graph.ir import CONTRACTIONS, Graph, Node, Op, batch_axis, concrete
from ..streaming.streams import Stream
from ..streaming.views import View
from .precision import is_rounded
from .space import GRAMS, Space

ANCHORS = CONTRACTIONS | GRAMS | {Op.SPECTRAL, Op.SCATTER_ROWS, Op.ALL_SUM}


def base(node: Node) -> Node:
    """Returns the node whose memory a reshape shares."""
    while node.op is Op.RESHAPE:
        (node,) = node.inputs
    return node


def is_input(node: Node) -> bool:
    """Whether a value is given in a call: it, or an image in the order of its channels last."""
    return (node.inputs[0] if node.op is Op.TRANSPOSE else node).op is Op.INPUT


def is_data(node: Node) -> bool:
    """Whether a value is given for a batch."""
    return is_input(node) and batch_axis(node.shape) is not None


def is_wide(node: Node) -> bool:
    """Whether a value is of 64-bit integers, as labels and indices are given."""
    return node.type.kind == "int" and (node.op is Op.INPUT or is_data(node))


def width(node: Node) -> int:
    """Returns the bytes of an element as it is stored."""
    return 2 if is_rounded(node) and node["expr"].op == "bf16" else 4


@dataclass(frozen=True)
class Way:
    """How a contraction is computed.

    Attributes:
        splits: parts of the contracted axis, each summed on an accumulator of its own.
        by_vendor: whether cuDNN or cuBLAS computes it, and no kernel of ours.
    """

    splits: int = 1
    by_vendor: bool = False

    @property
    def apart(self) -> bool:
        """Whether what is accumulated goes through memory, for another kernel to add."""
        return self.by_vendor or self.splits > 1


ALONE, VENDOR = Way(), Way(by_vendor=True)


@dataclass(eq=False)
class Kernel:
    """Contractions in sequence, and nodes computed while their tile is in registers; or a stream.

    Attributes:
        number: its place in the order of creation.
        space: what its tiles cover.
        anchors: the contractions, of one geometry, that are summed on its accumulator in turn; of a
            stream, its sinks.
        joint: the map in which the last anchors meet, or None.
        body: the nodes that it computes besides, operands first.
        partials: the sums of which each tile writes a part; they stand in the body of the kernel
            that adds the parts.
        way: how the anchors are computed.
        adds: the kernels whose accumulators it reads from memory, where their way is apart.
        reads: the values that it loads from memory, in order, each with the number of indices at
            which an element of the space reads it; None where it is read whole.
        writes: the values that it stores to memory, in order.
        stream: what it computes in passing, if that is what it does.
        views: how the values that the stream reads lie in memory, in its order.
        through: wide values of the stream that go through memory nevertheless, block by block.
    """

    number: int
    space: Space
    anchors: list[Node] = field(default_factory=list)
    joint: Node | None = None
    body: list[Node] = field(default_factory=list)
    partials: list[Node] = field(default_factory=list)
    way: Way = ALONE
    adds: list[Kernel] = field(default_factory=list)
    reads: dict[Node, int | None] = field(default_factory=dict)
    writes: dict[Node, None] = field(default_factory=dict)
    stream: Stream | None = None
    views: Sequence[View] = ()
    through: Sequence[Node] = ()

    @property
    def nodes(self) -> list[Node]:
        """All nodes that are computed here."""
        return [*self.anchors, *self.body]

    @property
    def joined(self) -> list[Node]:
        """The anchors that meet in the joint map."""
        return [a for a in self.anchors if self.joint is not None and a in self.joint.inputs]

    @property
    def shares_loop(self) -> bool:
        """Whether it computes x⋆v beside x⋆w + y⋆v, in this order."""
        return len(self.joined) == 2 and len(self.anchors) == 3

    @property
    def opaque(self) -> bool:
        """Whether its values are not at hand while it runs."""
        return self.stream is not None or any(a.op is Op.PATCH_GRAM for a in self.anchors)

    @property
    def whole_rows(self) -> bool:
        """Whether a tile must hold all columns: something is computed per row."""
        shapes = [n.shape for n in self.body] + [n.inputs[0].shape for n in self.partials]
        return any(map(self.space.along_rows, shapes))

    def loads(self, node: Node, batch: int) -> int:
        """Returns how many elements of a value are read: no more than there are, or are looked up.

        A kernel that looks up rows of a table, or takes a slice, does not read all of it.
        """
        places, elements = self.reads[node], math.prod(concrete(self.space.shape, batch))
        whole = node.type.numel(batch)
        return whole if places is None else min(whole, places * elements)

    def traffic(self, batch: int) -> int:
        """Returns the bytes that it reads and writes at a batch size, each element once.

        Partial sums are left out.
        """
        values = [*self.writes, *self.through, *self.through]  # written, and read
        for head in self.adds or [self]:
            if head.way.apart:  # accumulators: written by one kernel, read by the other
                values += [*head.anchors[-1:]] * head.way.splits
        loaded = sum(width(node) * self.loads(node, batch) for node in self.reads)
        return loaded + sum(width(node) * node.type.numel(batch) for node in values)

    def __str__(self) -> str:
        names = [n.op.value for n in self.nodes] + [f"{n.op.value}/tile" for n in self.partials]
        parts = f" in {self.way.splits} parts" if self.way.splits > 1 else ""
        parts = " by the vendor" if self.way.by_vendor else parts
        parts = " in passing" if self.stream is not None else parts
        return f"{self.space!s:<18} {' '.join(names)}{parts}"


@dataclass(frozen=True)
class Schedule:
    """What to launch for a graph, and where every value is computed.

    Attributes:
        graph: what is computed.
        kernels: all kernels, in execution order.
        launches: the same kernels by launch; those of one launch do not wait for each other.
        leaves: values that come from outside.
        looked_up: values that are nowhere in memory: a reader computes them from their operands.
        operands: what every contraction reads, in the order in which its kernel takes them.
        kernel_of: the kernel in which a node's value is complete, and that writes it.
        accumulated_by: the kernel that has a contraction among its anchors; where that is apart, it
            is not the one in which the value is complete.
        part_of: for sums that tiles give parts of, the kernel whose tiles do.
        stages: in kernels of several anchors, after which of them a node can be computed.
    """

    graph: Graph
    kernels: Sequence[Kernel]
    launches: Sequence[Sequence[Kernel]]
    leaves: frozenset[Node]
    looked_up: frozenset[Node]
    operands: Mapping[Node, Sequence[Node]]
    kernel_of: Mapping[Node, Kernel]
    accumulated_by: Mapping[Node, Kernel]
    part_of: Mapping[Node, Kernel]
    stages: Mapping[Kernel, Mapping[Node, int]]

    @property
    def streams(self) -> int:
        """How many kernels compute what they do in passing."""
        return sum(kernel.stream is not None for kernel in self.kernels)

    def traffic(self, batch: int) -> int:
        """Returns the bytes that kernels read and write at a batch size.

        Each element counts once a kernel; partial sums are left out.
        """
        return sum(kernel.traffic(batch) for kernel in self.kernels)

    def made(self) -> list[Node]:
        """Returns copies that were made for contractions and streams: transposed, or rounded."""
        operands = [x for both in self.operands.values() for x in both[:2]]
        operands += [view.of for kernel in self.kernels for view in kernel.views]
        copied = [x for x in operands if x.op is Op.TRANSPOSE or is_rounded(x)]
        return [x for x in dict.fromkeys(copied) if x not in self.leaves]

    def __str__(self) -> str:
        lines = [f"{self.graph.name}: {len(self.kernels)} kernels, {len(self.launches)} launches"]
        for i, launch in enumerate(self.launches):
            lines += [f"  {i:>3}  {kernel}" for kernel in launch]
        return "\n".join(lines)
