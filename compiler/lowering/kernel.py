"""What a schedule is made of: kernels over spaces, and where a node can be computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ..graph.ir import CONTRACTIONS, Graph, N, Node, Op, Shape, show
from .elements import ZERO, At, Index, reduction, split
from .precision import is_rounded

GRAMS = frozenset({Op.GRAM, Op.PATCH_GRAM})
ANCHORS = CONTRACTIONS | GRAMS | {Op.SPECTRAL}


def base(node: Node) -> Node:
    """The node whose memory a reshape shares."""
    while node.op is Op.RESHAPE:
        (node,) = node.inputs
    return node


def width(node: Node) -> int:
    """Bytes of an element as it is stored."""
    return 2 if is_rounded(node) and node["expr"].op == "bf16" else 4


@dataclass(frozen=True)
class Space:
    """What a kernel computes: the first `cut` axes are the rows of its tiles, the rest columns."""

    shape: Shape
    cut: int

    @property
    def rows(self) -> Shape:
        """Axes along the rows."""
        return self.shape[: self.cut]

    @property
    def columns(self) -> int:
        """Length of a row."""
        return math.prod(self.shape[self.cut :])

    @property
    def coordinates(self) -> At:
        """Names of the coordinates: a0, a1, …; an axis of length one is always at 0."""
        spans = ["rows"] * self.cut + ["columns"] * (len(self.shape) - self.cut)
        return tuple(
            ZERO if d == 1 else Index(f"a{axis}", frozenset({span}))
            for axis, (d, span) in enumerate(zip(self.shape, spans, strict=True))
        )

    def definition(self, axis: int) -> Index:
        """A coordinate in terms of r and c, the tile's rows and columns."""
        if axis < self.cut:
            return split(self.rows, Index("r", frozenset({"rows"})))[axis]
        return split(self.shape[self.cut :], Index("c", frozenset({"columns"})))[axis - self.cut]

    def home(self, shape: Shape) -> At | None:
        """Where a value of this shape lives: at every element, or along the rows; else nowhere."""
        longer = [d for d in shape if d != 1]
        for own in (self.shape, self.rows):
            if [d for d in own if d != 1] == longer:
                moved = iter([i for i in self.coordinates if i != ZERO])
                return tuple(ZERO if d == 1 else next(moved) for d in shape)
        return None

    def along_rows(self, shape: Shape) -> bool:
        """Whether a value of this shape lives along the rows, one element each."""
        home = self.home(shape) or ()
        return self.columns > 1 and frozenset().union(*(i.spans for i in home)) == {"rows"}

    def __str__(self) -> str:
        return show(self.shape)


def space_of(node: Node) -> Space:
    """The space in which a node is computed: its own, or that of the rows it sums."""
    if node.op in (Op.CONV_WEIGHT_GRAD, Op.PATCH_GRAM, Op.GRAM):
        return Space(node.shape, len(node.shape) - 1 if node.op in GRAMS else 1)
    shape = node.shape
    if node.op is Op.SAMPLE:
        shape = (*node.shape, node.inputs[0].shape[-1])
    elif in_rows(node) or is_partial(node):
        shape = node.inputs[0].shape
    return Space(shape, max(N in shape, len(shape) - 1))


def is_outer(node: Node) -> bool:
    """Whether a contraction sums outer products over pixels or rows."""
    transposed = node.op is Op.MATMUL and node["transpose_a"]
    return transposed or node.op in (Op.CONV_WEIGHT_GRAD, Op.GRAM)


def home_space(node: Node) -> Space:
    """The space of a node's own elements, where parts of it are added."""
    return Space(node.shape, max(0, len(node.shape) - 1)) if is_partial(node) else space_of(node)


def small(node: Node) -> bool:
    """Whether a value is a number or a vector, whatever the batch."""
    return len(node.shape) <= 1 and N not in node.shape


def in_rows(node: Node) -> bool:
    """Whether a node is computed from whole rows."""
    row = node.op is Op.REDUCE_SUM and reduction(node) == "row"
    return row or node.op in (Op.ROW_MAX, Op.SAMPLE)


def is_partial(node: Node) -> bool:
    """Whether tiles give partial sums that another kernel adds."""
    return node.op is Op.REDUCE_SUM and reduction(node) in ("all", "columns")


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


VENDOR = Way(by_vendor=True)


@dataclass(eq=False)
class Kernel:
    """Contractions in sequence, and nodes computed while their tile is in registers.

    number: in order of creation. anchors: contractions of one geometry, on one accumulator. joint:
    the map in which the last anchors meet. body: nodes computed, operands first. partials: sums
    whose tiles' parts are written; they stand in the body of the kernel that adds them. way: how
    the anchors are computed; where that is apart, another kernel `adds` what they wrote. reads,
    writes: values in memory.
    """

    number: int
    space: Space
    anchors: list[Node] = field(default_factory=list)
    joint: Node | None = None
    body: list[Node] = field(default_factory=list)
    partials: list[Node] = field(default_factory=list)
    way: Way = Way()
    adds: list[Kernel] = field(default_factory=list)
    reads: dict[Node, None] = field(default_factory=dict)
    writes: dict[Node, None] = field(default_factory=dict)

    @property
    def nodes(self) -> list[Node]:
        """All that is computed here."""
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
        return any(a.op is Op.PATCH_GRAM for a in self.anchors)

    @property
    def whole_rows(self) -> bool:
        """Whether a tile must hold all columns: something is computed per row."""
        shapes = [n.shape for n in self.body] + [n.inputs[0].shape for n in self.partials]
        return any(map(self.space.along_rows, shapes))

    def __str__(self) -> str:
        names = [n.op.value for n in self.nodes] + [f"{n.op.value}/tile" for n in self.partials]
        parts = f" in {self.way.splits} parts" if self.way.splits > 1 else ""
        parts = " by the vendor" if self.way.by_vendor else parts
        return f"{self.space!s:<18} {' '.join(names)}{parts}"


@dataclass(frozen=True)
class Schedule:
    """Kernels in execution order, and launches: kernels of a launch do not wait for each other."""

    graph: Graph
    kernels: Sequence[Kernel]
    launches: Sequence[Sequence[Kernel]]
    looked_up: Callable[[Node], bool]
    leaf: Callable[[Node], bool]
    stage: Callable[[Kernel, Node, bool], int]
    part_of: Mapping[Node, Kernel]
    operands: Mapping[Node, Sequence[Node]]

    def traffic(self, batch: int) -> int:
        """Bytes that kernels read and write: each value once a kernel, partial sums left out."""
        total = 0
        for kernel in self.kernels:
            values = [*kernel.reads, *kernel.writes]
            for head in kernel.adds or [kernel]:
                if head.way.apart:  # accumulators: written by one kernel, read by the other
                    values += [*head.anchors[-1:]] * head.way.splits
            total += sum(width(node) * node.type.numel(batch) for node in values)
        return total

    def made(self) -> list[Node]:
        """Copies of values that were made for contractions: transposed, or rounded."""
        operands = dict.fromkeys(x for both in self.operands.values() for x in both[:2])
        copied = [x for x in operands if x.op is Op.TRANSPOSE or is_rounded(x)]
        return [x for x in copied if not self.leaf(x)]

    def __str__(self) -> str:
        lines = [f"{self.graph.name}: {len(self.kernels)} kernels, {len(self.launches)} launches"]
        for i, launch in enumerate(self.launches):
            lines += [f"  {i:>3}  {kernel}" for kernel in launch]
        return "\n".join(lines)
