"""Runs a graph on PyTorch's operators: no autograd graph, each buffer released at its last use.

`compile_steps` cuts a graph into steps: patterns that PyTorch has fused, groups of maps, and one
step per remaining node. A step reads and writes nodes; the executor keeps their tensors while
needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from ...compiler.graph.ir import LEAVES, VIEWS, Graph, Node, Op
from ...compiler.graph.scalar import evaluate
from ..backend import Context
from ..vectors import Vectors
from .pairs import Step, paired
from .pointwise import Pointwise
from .precision import tensor_cores
from .rules import ATEN


def _single(node: Node) -> Step:
    call = ATEN[node.op](node)
    return Step(node.inputs, [node], lambda context, *xs: [call(context, *xs)])


def compile_steps(graph: Graph, keep: Iterable[Node] = ()) -> list[Step]:
    """The graph's steps in execution order; nodes in `keep` are written besides the outputs."""
    nodes = graph.computed()
    written = {n: step for step in paired(nodes) for n in step.writes}
    needed = {*graph.outputs.values(), *keep}
    done = {n for n in graph.nodes() if n not in set(nodes)}
    waiting = dict.fromkeys(nodes)
    steps: list[Step] = []

    def ready(node: Node, group: Mapping[Node, None]) -> bool:
        return all(i in done or i in group for i in node.inputs)

    while waiting:
        node = next(n for n in waiting if ready(n, {}))
        if node.op is not Op.MAP:
            step = written.get(node) or _single(node)
            if not all(i in done for i in step.reads):
                step = _single(node)
            for n in step.writes:
                waiting.pop(n, None)
            done.update(step.writes)
            steps.append(step)
            continue
        group: dict[Node, None] = {}
        sums: list[Node] = []
        views: list[Node] = []
        for n in waiting:
            if n.op is Op.MAP and n.shape == node.shape and ready(n, group):
                group[n] = None
            elif n.op in VIEWS and ready(n, {}):
                views.append(n)
                done.add(n)
            elif (
                n.op is Op.REDUCE_SUM
                and n.inputs[0] in group
                and n not in written
                and _on_the_way(n)
            ):
                sums.append(n)
        outside = {i for n in nodes if n not in group and n not in sums for i in n.inputs} | needed
        pointwise = Pointwise(list(group), [n for n in group if n in outside], sums)
        steps += [_single(v) for v in views]
        steps.append(Step(pointwise.reads, pointwise.writes, pointwise))
        for n in (*group, *sums, *views):
            waiting.pop(n)
        done.update(group, sums)
    return steps


def _on_the_way(node: Node) -> bool:
    """Sums that a group of maps can take while it runs: over all axes, or down to the last."""
    rank = len(node.inputs[0].shape)
    return node["axes"] in (tuple(range(rank)), tuple(range(rank - 1)))


class AtenBackend:
    """Runs graphs on PyTorch's operators, in the precision of their dtype; see `backend.Backend`.

    Args:
        device: The device of all tensors.
    """

    precision = "ieee"
    two_products = True

    def __init__(self, device: torch.device) -> None:
        self.device, self.vectors = device, Vectors()

    def executor(self, graph: Graph, keep: Iterable[Node] = ()) -> AtenExecutor:
        """Returns the graph as a list of steps."""
        return AtenExecutor(graph, keep)


class AtenExecutor:
    """Runs a graph, compiled once, at any batch size; see `backend.Executor`.

    Args:
        graph: What to run; its given nodes and leaves are fed.
        keep: Further nodes whose tensors are returned (a tape).
    """

    def __init__(self, graph: Graph, keep: Iterable[Node] = ()) -> None:
        self.graph = graph
        self.keep = [n for n in keep if n not in graph.given]
        self.steps = compile_steps(graph, self.keep)
        needed = {*graph.outputs.values(), *self.keep, *graph.given}
        last: dict[Node, int] = {}
        for i, step in enumerate(self.steps):
            for n in (*step.reads, *step.writes):
                last[n] = i
        self.release: list[list[Node]] = [[] for _ in self.steps]
        for n, i in last.items():
            if n not in needed:
                self.release[i].append(n)
        self.leaves = [n for n in graph.nodes() if n.op in LEAVES]

    def plan(self, batch: int, given: Iterable[Node] = ()) -> None:
        """Returns None: there is no plan, since operators run one after another."""

    @torch.no_grad()
    def __call__(
        self, context: Context, feed: Mapping[Node, Tensor], out: Mapping[str, Tensor] | None = None
    ) -> dict[Node, Tensor]:
        """Returns the tensors of the outputs and of `keep`, by node.

        Args:
            context: The batch size, dtype and device.
            feed: The tensors of the leaves and given nodes.
            out: By name, tensors that outputs are copied to.
        """
        values: dict[Node, Tensor] = {}
        for n in self.leaves:
            if n.op is Op.CONST:
                number = evaluate(n["value"], context.batch)
                values[n] = torch.tensor(number, dtype=context.dtype, device=context.device)
            else:
                values[n] = feed[n]
        for n in self.graph.given:
            values[n] = feed[n]
        with tensor_cores(context.device, allowed=False):
            for step, release in zip(self.steps, self.release, strict=True):
                results = step.call(context, *[values[n] for n in step.reads])
                for n, x in zip(step.writes, results, strict=True):
                    values[n] = x
                for n in release:
                    del values[n]
        for name, target in (out or {}).items():
            target.copy_(values[self.graph.outputs[name]])
        return {n: values[n] for n in (*self.graph.outputs.values(), *self.keep)}
