"""Who computes a contraction, one of our kernels or the vendor's library, and with which tiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ...compiler.graph.ir import Graph, Node
from ...compiler.lowering.kernel import ANCHORS, VENDOR, Way
from ...compiler.lowering.precision import ROUNDED
from .settings import Settings
from .tiles import Tiling, computable, tiling


class Comparison(Protocol):
    """What knows whether our kernel or the vendor's library is faster."""

    def prepare(self, nodes: Sequence[Node], batch: int) -> None:
        """Compiles together what will be measured to compare for these contractions."""
        ...

    def fused_is_faster(self, node: Node, batch: int) -> bool:
        """Whether our kernel computes a contraction faster at a batch size."""
        ...


class Selection:
    """Decides how the contractions of a graph are computed.

    Args:
        settings: how kernels are made; without a comparison they say who computes contractions.
        comparison: what is asked who is faster, where contractions are "measured".
    """

    def __init__(self, settings: Settings, comparison: Comparison | None = None) -> None:
        self.settings, self.comparison = settings, comparison

    def prepare(self, graph: Graph, batch: int) -> None:
        """Gets ready to decide about all contractions of a graph."""
        if self.comparison is not None:
            nodes = [n for n in graph.computed() if n.op in ANCHORS and computable(n)]
            self.comparison.prepare(nodes, batch)

    def fused(self, node: Node, batch: int) -> bool:
        """Whether one of our kernels computes a contraction."""
        if not computable(node):
            return False
        if self.comparison is not None:
            return self.comparison.fused_is_faster(node, batch)
        return self.settings.contractions != "vendor"

    def tiling(self, node: Node, batch: int, shares_loop: bool = False) -> Tiling:
        """Returns how our kernel for a contraction is tiled.

        Args:
            node: a contraction that a kernel of ours computes.
            batch: the batch size.
            shares_loop: whether it is one of three contractions that read the same operands. They
                are taken in one loop where operands are rounded: there tensor cores wait for them.
        """
        precision, target = self.settings.precision, self.settings.target
        return tiling(node, batch, precision, target, shares_loop and precision in ROUNDED)

    def way(self, node: Node, batch: int) -> Way:
        """Returns who computes a contraction, and in how many parts."""
        return Way(self.tiling(node, batch).split) if self.fused(node, batch) else VENDOR
