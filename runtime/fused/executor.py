"""A graph as fused Triton kernels: a plan per batch size, made when it is first asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from ...compiler.graph import scalar
from ...compiler.graph.ir import Graph, Node, Op
from ...compiler.graph.locks import PROCESS
from ...compiler.lowering.kernel import base
from ..aten.switches import switches
from ..backend import Context
from ..footprint import Footprint
from ..recent import Recent
from . import pipeline
from .chips import on_device
from .compiling import Job
from .plan import Plan
from .selection import Selection
from .storage import dtype_of


class FusedExecutor:
    """Runs a graph as fused kernels at any batch size; see `backend.Executor`.

    With `keep`, operands that were made for contractions (rounded, transposed) are returned as
    well, under their own nodes: fed to another program of the network, they are not made again.

    Programs of all threads run one at a time: a plan has one memory, and the process one compiler,
    one interpreter and one set of switches.

    Args:
        graph: what to compute.
        keep: nodes whose tensors are returned besides the outputs (a tape).
        selection: who computes contractions, and how kernels are made.
        keep_made: whether operands that were made are returned even if nothing is kept.
        copies_data: whether what is recorded reads copies of the batch's data, which lie elsewhere
            in every call; not where a batch is a vector that is worked on in place.
    """

    def __init__(
        self,
        graph: Graph,
        keep: Iterable[Node],
        selection: Selection,
        keep_made: bool = False,
        copies_data: bool = True,
    ) -> None:
        self.selection, self.copies_data = selection, copies_data
        self.lowered = pipeline.lower(graph, keep, selection.settings.precision)
        self.outputs = self.lowered.outputs
        self.keep_made = keep_made or len(self.outputs) > len(graph.outputs)
        self.plans = Recent[int, Plan]()

    def plan(self, batch: int, given: Iterable[Node] = ()) -> Plan:
        """Returns the plan for a batch size.

        Args:
            batch: the batch size.
            given: the nodes that will be fed besides the graph's own.
        """

        def made() -> Plan:
            return pipeline.plan(
                self.lowered.graph,
                batch,
                self.selection,
                (self.lowered.became.get(n, n) for n in given),
                self.keep_made,
                copies_data=self.copies_data,
            )

        with PROCESS:
            return self.plans.made(batch, made)

    def footprint(self, context: Context, given: Collection[Node] = ()) -> Footprint:
        """Returns the bytes that a call takes, its results and the plan's memory included.

        The first batch size that is asked for is planned, others are estimated from its plan.
        """
        plan = self.plans.get(context.batch) or next(iter(self.plans.values()), None)
        return (plan or self.plan(context.batch, given)).footprint(context.batch)

    def prepared(
        self, context: Context, places: Mapping[Node, Tensor], out: Mapping[str, Tensor]
    ) -> list[Job]:
        """Returns the kernels of a plan before its first call; see `Plan.prepare`."""
        plan, became = self.plans[context.batch], self.lowered.became
        known = {became.get(n, n): x for n, x in places.items()}
        return plan.prepare(context, known, self.in_place(plan, out))

    def in_place(self, plan: Plan, out: Mapping[str, Tensor]) -> dict[Node, Tensor]:
        """Returns the memory in `out` that kernels can write to: no other result may lie there."""
        buffers = {name: base(node) for name, node in self.lowered.graph.outputs.items()}
        others = {buffers[name] for name in buffers.keys() - out.keys()} | set(plan.made)
        return {
            buffers[name]: target
            for name, target in out.items()
            if buffers[name] not in others and target.dtype == dtype_of(buffers[name])
        }

    @torch.no_grad()
    def __call__(
        self, context: Context, feed: Mapping[Node, Tensor], out: Mapping[str, Tensor] | None = None
    ) -> dict[Node, Tensor]:
        """Returns the tensors of the outputs and of all that is kept, by node.

        Outputs named in `out` lie there: in contiguous memory that their kernels write to, or that
        they are copied to where something else shares theirs.
        """
        out, became = out or {}, self.lowered.became
        with PROCESS, on_device(context.device), switches(context.device):
            plan = self.plan(context.batch, feed)
            known = {became.get(n, n): x for n, x in feed.items()}
            tensor = plan(context, known, self.in_place(plan, out))

        def result(node: Node) -> Tensor:
            if node.op is Op.CONST:
                number = scalar.evaluate(node["value"], context.batch)
                return torch.tensor(number, dtype=context.dtype, device=context.device)
            found, shape = tensor(base(node)), plan.shape(node)
            return found if found.shape == shape else found.view(shape)

        increment_version(out.values())  # PyTorch does not see what kernels write
        for name, target in out.items():
            value = result(self.lowered.graph.outputs[name])
            if value.data_ptr() != target.data_ptr():
                target.copy_(value)
        made = {n: result(n) for n in plan.made}
        return made | {n: result(became[n]) for n in self.outputs.values()}
