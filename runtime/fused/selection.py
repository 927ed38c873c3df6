"""Who computes a contraction, one of our kernels or the vendor's library, and with which tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from ...compiler.graph.ir import CONTRACTIONS, Graph, Node
from ...compiler.lowering.kernel import VENDOR, Way
from ...compiler.lowering.precision import ROUNDED
from ...compiler.lowering.reading import contractions
from ...compiler.lowering.space import GRAMS
from .settings import Settings
from .tiles import Tiling, computable, tiling

FUSED, IN_FOUR_WARPS, BY_VENDOR = WAYS = "fused", "fused, in four warps", "vendor"
COMPARED = CONTRACTIONS | GRAMS  # what the vendor's library may be faster at


class Comparison(Protocol):
    """What knows which of `WAYS` to compute a contraction is right, and the fastest of those."""

    def prepare(self, nodes: Sequence[Node], batch: int) -> None:
        """Compiles together what will be measured to compare for these contractions."""
        ...

    def fastest(self, node: Node, batch: int) -> str:
        """Returns how a contraction is computed at a batch size."""
        ...


class Selection:
    """Decides how the contractions of a graph are computed.

    Args:
        settings: how kernels are made; without a comparison they say who computes contractions.
        comparison: what is asked, where contractions are "measured".
    """

    def __init__(self, settings: Settings, comparison: Comparison | None = None) -> None:
        self.settings, self.comparison = settings, comparison

    def prepare(self, graphs: Sequence[Graph], batch: int) -> None:
        """Gets ready to decide about all contractions of some graphs."""
        if self.comparison is not None:
            nodes = [n for graph in graphs for n in contractions(graph, batch)]
            compared = [n for n in nodes if n.op in COMPARED and computable(n)]
            self.comparison.prepare(compared, batch)

    def chosen(self, node: Node, batch: int) -> str:
        """Returns which of `WAYS` computes a contraction."""
        if not computable(node):
            return BY_VENDOR
        if node.op not in COMPARED:
            return FUSED
        if self.comparison is not None:
            return self.comparison.fastest(node, batch)
        return self.settings.contractions

    def tiling(self, node: Node, batch: int, shares_loop: bool = False) -> Tiling:
        """Returns how our kernel for a contraction is tiled.

        Args:
            node: a contraction that a kernel of ours computes.
            batch: the batch size.
            shares_loop: whether it is one of three contractions that read the same operands. They
                are taken in one loop where operands are rounded: there tensor cores wait for them.
        """
        precision, target = self.settings.precision, self.settings.target
        few = self.chosen(node, batch) == IN_FOUR_WARPS
        together = shares_loop and precision in ROUNDED and not few
        found = tiling(node, batch, precision, target, together)
        return replace(found, constants={**found.constants, "num_warps": 4}) if few else found

    def way(self, node: Node, batch: int) -> Way:
        """Returns who computes a contraction, and in how many parts."""
        if self.chosen(node, batch) == BY_VENDOR:
            return VENDOR
        return Way(self.tiling(node, batch).split)
