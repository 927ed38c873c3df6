"""Runs a graph as fused Triton kernels, by a plan per batch size; who computes its contractions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...compiler.graph import scalar
from ...compiler.graph.ir import Graph, Node, Op, concrete
from ...compiler.lowering.kernel import ANCHORS, VENDOR, Way, base
from ...compiler.lowering.precision import ROUNDED, two_products, with_precision
from ..backend import Context
from .chips import CHIPS, Chip, chip_of
from .compiling import compile_here, distinct
from .plan import Plan, dtype_of
from .replay import Record, cuda_graph
from .selection import Call, Choices, alone, random_feed
from .tiles import (
    Choice,
    PatchChoice,
    choose,
    choose_patches,
    computable,
)
from .vectors import CompiledVectors


@dataclass(frozen=True)
class Settings:
    """How kernels are made.

    precision: of contractions. contractions: "fused", "vendor", or for each whichever is faster on
    the device where it is "measured". interpreted: whether kernels run in the interpreter.
    elements: of a pointwise tile. record: how launches are recorded to be replayed, if at all.
    chip: what they are compiled for.
    """

    precision: str = "ieee"
    contractions: str = "vendor"
    interpreted: bool = False
    elements: int = 1024
    choices: Choices | None = None
    record: Record | None = None
    chip: Chip = CHIPS["sm_90"]

    @staticmethod
    def choose(
        precision: str,
        contractions: str,
        interpreted: bool,
        device: torch.device,
        cuda_graphs: bool = True,
    ) -> Settings:
        """Settings for a device."""
        if contractions == "auto":
            contractions = "fused" if interpreted else "measured"
        choices = Choices(device) if contractions == "measured" else None
        elements = 8192 if interpreted else 1024
        record = cuda_graph if cuda_graphs and device.type == "cuda" else None
        chip = chip_of(device)
        return Settings(precision, contractions, interpreted, elements, choices, record, chip)

    @property
    def _compiled_for(self) -> Chip | None:
        return None if self.interpreted else self.chip

    def _label(self, node: Node, batch: int) -> str:
        return f"{self.precision}, batch {batch}: {node!r} {sorted(node.attributes.items())}"

    def _ways(self, node: Node) -> dict[str, FusedExecutor]:
        """A contraction alone, by these kernels and by the vendor's library."""
        return {
            who: FusedExecutor(
                alone(node), (), replace(self, contractions=who, choices=None, record=None)
            )
            for who in ("fused", "vendor")
        }

    def prepare(self, graph: Graph, batch: int) -> None:
        """Compiles together what will be measured to schedule a graph."""
        if self.choices is None or self.choices.device.type != "cuda":
            return
        found: dict[str, Node] = {}
        for node in graph.computed():
            if node.op in ANCHORS and computable(node):
                found.setdefault(self._label(node, batch), node)
        unknown = [node for label, node in found.items() if label not in self.choices.known]
        plans = [
            way.plan(batch, map(base, node.inputs))
            for node in unknown
            for way in self._ways(node).values()
        ]
        compile_here(distinct(job for plan in plans for job in plan.jobs("")))

    def fused(self, node: Node, batch: int) -> bool:
        """Whether a contraction is a fused kernel."""
        if self.choices is None or not computable(node):
            return self.contractions != "vendor" and computable(node)
        context = Context(batch, torch.float32, self.choices.device)

        def call(way: FusedExecutor) -> Callable[[], Call]:
            def make() -> Call:
                feed = random_feed(node, context)
                return lambda: way(context, feed)

            return make

        ways = {who: call(way) for who, way in self._ways(node).items()}
        return self.choices.fastest(self._label(node, batch), ways) == "fused"

    def choice(self, node: Node, batch: int, shares_loop: bool = False) -> Choice:
        """How a fused contraction is launched; in one loop where it is tensor cores that wait."""
        together = shares_loop and self.precision in ROUNDED
        return choose(node, batch, self.precision, self._compiled_for, together)

    def patches(self, node: Node, batch: int) -> PatchChoice:
        """How a patch Gram is launched."""
        return choose_patches(node, batch, self.precision, self._compiled_for)

    def way(self, node: Node, batch: int) -> Way:
        """How a contraction is computed; a patch Gram adds its parts itself."""
        if not self.fused(node, batch):
            return VENDOR
        return Way() if node.op is Op.PATCH_GRAM else Way(self.choice(node, batch).split)


class TritonBackend:
    """Graphs as fused Triton kernels; see `backend.Backend`."""

    def __init__(self, settings: Settings, device: torch.device) -> None:
        self.settings, self.device, self.precision = settings, device, settings.precision
        self.vectors = CompiledVectors(self.executor)

    @property
    def two_products(self) -> bool:
        """Unless tensor cores take rounded operands."""
        return two_products(self.precision)

    def executor(self, graph: Graph, keep: Iterable[Node] = ()) -> FusedExecutor:
        """The graph's kernels."""
        return FusedExecutor(graph, keep, self.settings)


def on_device(device: torch.device) -> AbstractContextManager[object]:
    """Triton launches on the current GPU: this makes it the given one."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


class FusedExecutor:
    """A graph as fused kernels; called like `Executor`.

    With `keep`, operands that were made for contractions (rounded, transposed) are returned as
    well, under their own nodes: fed to another program of the network, they are not made again.
    """

    def __init__(
        self, graph: Graph, keep: Iterable[Node], settings: Settings, keeps: bool = False
    ) -> None:
        self.settings = settings
        kept = set(keep) - graph.given
        # In the order of the graph: the same network gives the same code, whatever run it is.
        tape = {f"tape:{i}": n for i, n in enumerate(n for n in graph.nodes() if n in kept)}
        self.outputs = {**graph.outputs, **tape}
        taped = Graph(graph.name, self.outputs, graph.given)
        self.graph, self.lowered = with_precision(taped, settings.precision)
        self.keeps = keeps or len(self.outputs) > len(graph.outputs)
        self.plans: dict[int, Plan] = {}

    def plan(self, batch: int, given: Iterable[Node] = ()) -> Plan:
        """The plan for a batch size; `given` are the nodes that will be fed."""
        if batch not in self.plans:
            known = frozenset(self.lowered.get(n, n) for n in given) | self.graph.given
            graph = Graph(self.graph.name, self.graph.outputs, known)
            self.settings.prepare(graph, batch)
            self.plans[batch] = Plan(graph, batch, self.settings, self.keeps)
        return self.plans[batch]

    def in_place(self, plan: Plan, out: Mapping[str, Tensor]) -> dict[Node, Tensor]:
        """The memory in `out` that kernels can write to: no other result may lie there."""
        buffers = {name: base(node) for name, node in self.graph.outputs.items()}
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
        """Tensors of the outputs and of `keep`, by node.

        Outputs named in `out` lie there: in contiguous memory that their kernels write to, or that
        they are copied to where something else shares theirs.
        """
        plan, out = self.plan(context.batch, feed), out or {}
        with on_device(context.device):
            feed = {self.lowered.get(n, n): x for n, x in feed.items()}
            tensor = plan(context, feed, self.in_place(plan, out))

        def result(node: Node) -> Tensor:
            if node.op is Op.CONST:
                number = scalar.evaluate(node["value"], context.batch)
                return torch.tensor(number, dtype=context.dtype, device=context.device)
            return tensor(base(node)).view(concrete(node.shape, context.batch))

        for name, target in out.items():
            value = result(self.graph.outputs[name])
            if value.data_ptr() != target.data_ptr():
                target.copy_(value)
        made = {n: result(n) for n in plan.made}
        return made | {n: result(self.lowered[n]) for n in self.outputs.values()}
