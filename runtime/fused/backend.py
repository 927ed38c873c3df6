"""The backend that runs graphs as fused Triton kernels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import cast

import torch

from ...compiler.graph.ir import Graph, Node
from ...compiler.graph.locks import PROCESS
from ...compiler.lowering.precision import two_products
from ..backend import Context, Expected
from .chips import on_device
from .compiling import Job, compile_once, interpreted
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

    def __reduce__(self) -> tuple[type[TritonBackend], tuple[Settings, torch.device]]:
        """Returns what a backend is copied and pickled by: nothing that it has chosen or made."""
        return TritonBackend, (self.selection.settings, self.device)

    @property
    def compiles(self) -> bool:
        """Whether kernels are compiled, not interpreted."""
        return not interpreted()

    def two_products(self, operations: float) -> bool:
        """Whether quadratic forms take two products a layer: unless operands are rounded."""
        return two_products(self.precision)

    def executor(self, graph: Graph, keep: Iterable[Node] = ()) -> FusedExecutor:
        """Returns the graph as fused kernels."""
        return FusedExecutor(graph, keep, self.selection)

    def compile_ahead(self, context: Context, calls: Sequence[Expected]) -> None:
        """Compiles together what will be called one after another.

        First comes what is measured to choose between our kernels and the library's, then all
        kernels that were chosen.
        """
        executors = [cast(FusedExecutor, call.executor) for call in calls]
        with PROCESS, on_device(context.device):
            self.selection.prepare([each.lowered.graph for each in executors], context.batch)
            made, jobs = list[Node](), list[Job]()
            for executor, call in zip(executors, calls, strict=True):
                given = [*call.given, *made] if call.on_tape else call.given
                made += executor.plan(context.batch, given).made
                jobs += executor.prepared(context, call.places, call.out)
            compile_once(jobs, " ".join(each.lowered.graph.name for each in executors))
