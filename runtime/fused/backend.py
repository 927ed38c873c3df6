"""The backend that runs graphs as fused Triton kernels."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch

from ...compiler.graph.ir import Graph, Node
from ...compiler.lowering.precision import two_products
from .executor import FusedExecutor
from .measurements import Trials
from .selection import Selection
from .settings import Settings
from .vectors import CompiledVectors


class TritonBackend:
    """Runs graphs as fused Triton kernels; see `backend.Backend`.

    Args:
        settings: how kernels are made.
        device: where they run.
    """

    def __init__(self, settings: Settings, device: torch.device) -> None:
        trials = Trials(settings, device) if settings.contractions == "measured" else None
        self.selection = Selection(settings, trials)
        self.device, self.precision = device, settings.precision
        self.vectors = CompiledVectors(
            partial(FusedExecutor, keep=(), selection=self.selection, copies_data=False)
        )

    @property
    def two_products(self) -> bool:
        """Whether quadratic forms take two products a layer: unless operands are rounded."""
        return two_products(self.precision)

    def executor(self, graph: Graph, keep: Iterable[Node] = ()) -> FusedExecutor:
        """Returns the graph as fused kernels."""
        return FusedExecutor(graph, keep, self.selection)
