"""Runs a graph on PyTorch's operators: no autograd graph, each buffer released at its last use.

`compile_steps` cuts a graph into steps: patterns that PyTorch has fused, groups of maps, and one
step per remaining node. A step reads and writes nodes; the executor keeps their tensors while
needed.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from ...compiler.graph.ir import LEAVES, VIEWS, Graph, Node, Op, Shape, concrete
from ...compiler.graph.scalar import evaluate
from ...compiler.streaming.regrouping import regrouped
from ...compiler.streaming.streams import Item, Stream, in_order
from ..backend import Context, Expected, alone
from ..footprint import META, Allocations, Footprint
from ..vectors import Vectors
from .pairs import Step, paired
from .passing import Passing
from .pointwise import Pointwise
from .rewriting import rewritten
from .rules import ATEN, TAKE_OUT
from .switches import switches

SHORT = 1e7  # operations of a contraction that takes as long as the calls which spare it


def _single(node: Node) -> Step:
    call = ATEN[node.op](node)

    def alone(context: Context, *xs: Tensor, **out: Tensor) -> list[Tensor]:
        return [call(context, *xs, **out)]

    return Step(node.inputs, [node], alone, takes_out=node.op in TAKE_OUT)


def compile_steps(graph: Graph, keep: Iterable[Node] = (), streams: bool = True) -> list[Step]:
    """Returns the graph's steps in execution order.

    Args:
        graph: what to run.
        keep: nodes that are written besides the outputs.
        streams: whether wide values are computed block by block.
    """
    needed = {*graph.outputs.values(), *keep}
    items, found = in_order(graph, needed) if streams else (graph.computed(), [])
    steps = _Steps(items, needed, [_passing(stream) for stream in found])
    for node in steps.place:
        if node in steps.done:
            continue
        if node.op is Op.MAP and node not in steps.sinks:
            steps.add_group(node.shape)
        else:
            steps.add(node)
    return _alive(steps.found, steps.needed)


def _passing(stream: Stream) -> Step:
    """Returns the step of a stream, whose blocks are graphs that are run as any other."""
    passing = Passing(stream, lambda graph: AtenExecutor(graph, streams=False))
    return Step(stream.reads, stream.writes, passing)


def _alive(steps: Sequence[Step], needed: Iterable[Node]) -> list[Step]:
    """Returns the steps that write what is needed, or what another of them reads."""
    read, alive = set(needed), []
    for step in reversed(steps):
        if not read.isdisjoint(step.writes):
            alive.append(step)
            read.update(step.reads)
    return alive[::-1]


class _Steps:
    """The steps of an executor while they are being found.

    Who becomes ready is noted when its last operand is done, so the whole costs time in proportion
    to the graph.

    Attributes:
        found: the steps so far.
        done: the nodes that they compute.
    """

    def __init__(
        self, items: Sequence[Item], needed: set[Node], passing: Sequence[Step] = ()
    ) -> None:
        self.found: list[Step] = []
        self.done: set[Node] = set()
        self.needed = needed
        self.sinks = sinks = {n: step for step in passing for n in step.writes}
        alone = [item for item in items if isinstance(item, Node)]
        nodes = [n for item in items for n in (item.writes if isinstance(item, Stream) else [item])]
        self.place = {node: i for i, node in enumerate(nodes)}
        self.written = {n: step for step in paired(alone) for n in step.writes} | sinks
        self.missing: dict[Node, int] = {}  # operands that are not done
        self.users: dict[Node, list[Node]] = {node: [] for node in nodes}
        self.ready: dict[Shape | None, list[Node]] = {}  # maps by shape, views at None
        for node in nodes:
            read = sinks[node].reads if node in sinks else node.inputs
            operands = [x for x in dict.fromkeys(read) if x in self.place]
            self.missing[node] = len(operands)
            for x in operands:
                self.users[x].append(node)
            self._note(node)

    def _note(self, node: Node) -> None:
        if self.missing[node] or node in self.done or node in self.sinks:
            return
        if node.op is Op.MAP or node.op in VIEWS:
            kind = node.shape if node.op is Op.MAP else None
            self.ready.setdefault(kind, []).append(node)

    def _finish(self, nodes: Iterable[Node]) -> None:
        fresh = [n for n in nodes if n not in self.done]
        self.done.update(fresh)
        for user in [u for n in fresh for u in self.users[n]]:
            self.missing[user] -= 1
            self._note(user)

    def add(self, node: Node) -> None:
        """Adds the step of a node, with another one where one operator gives both."""
        step = self.written.get(node) or _single(node)
        if any(x in self.place and x not in self.done for x in step.reads):
            step = _single(node)
        self.found.append(step)
        self._finish(step.writes)

    def add_group(self, shape: Shape) -> None:
        """Adds all maps of a shape that can run now, sums of them, and before them ready views."""
        group: dict[Node, None] = {}
        views: list[Node] = []
        inside: Counter[Node] = Counter()  # operands of a node that are in the group
        waiting = [(self.place[n], n) for kind in (shape, None) for n in self.ready.pop(kind, ())]
        heapq.heapify(waiting)
        while waiting:
            _, node = heapq.heappop(waiting)
            if node in self.done:
                continue
            if node.op is Op.MAP:
                group[node] = None
                inside.update(self.users[node])
            else:
                views.append(node)
                self._finish([node])
            for kind in (shape, None):
                for n in self.ready.pop(kind, ()):
                    heapq.heappush(waiting, (self.place[n], n))
            for user in self.users[node]:
                fits = user.op is Op.MAP and user.shape == shape and user not in self.sinks
                if fits and 0 < self.missing[user] == inside[user]:
                    heapq.heappush(waiting, (self.place[user], user))
        self.found += [_single(v) for v in views]
        self._add_pointwise(group)

    def _add_pointwise(self, group: Mapping[Node, None]) -> None:
        """Adds a group of maps and the sums of them that it can take while it runs."""
        reads = [x for n in group for x in n.inputs if x.shape == n.shape and x in self.users]
        users = dict.fromkeys(u for n in (*group, *reads) for u in self.users[n])
        sums = [n for n in users if n.op is Op.REDUCE_SUM and self._rides_along(n)]
        sums.sort(key=self.place.__getitem__)
        together = {*group, *sums}
        wanted = [n for n in group if n in self.needed or not together.issuperset(self.users[n])]
        pointwise = Pointwise(list(group), wanted, sums)
        self.found.append(Step(pointwise.reads, pointwise.writes, pointwise))
        self._finish(together)

    def _rides_along(self, node: Node) -> bool:
        """Whether a sum is over all axes or down to the last, and not part of a pair."""
        rank = len(node.inputs[0].shape)
        axes = tuple(range(rank)), tuple(range(rank - 1))
        return node["axes"] in axes and node not in self.written and node not in self.done


class AtenBackend:
    """Runs graphs on PyTorch's operators, in the precision of their dtype; see `backend.Backend`.

    Args:
        device: the device of all tensors.
    """

    precision = "ieee"
    compiles = False

    def __init__(self, device: torch.device) -> None:
        self.device, self.vectors = device, Vectors()

    def two_products(self, operations: float) -> bool:
        """Whether quadratic forms take two products a layer: unless these are short calls.

        Two ask for more maps, and each of these is a call.
        """
        return operations >= SHORT

    def executor(self, graph: Graph, keep: Iterable[Node] = ()) -> AtenExecutor:
        """Returns the graph as a list of steps."""
        return AtenExecutor(graph, keep)

    def compile_ahead(self, context: Context, calls: Sequence[Expected]) -> None:
        """Does nothing: operators are compiled."""


class AtenExecutor:
    """Runs a graph, compiled once, at any batch size; see `backend.Executor`.

    Args:
        graph: what to run; its given nodes and leaves are fed.
        keep: further nodes whose tensors are returned (a tape).
        streams: whether wide values are computed block by block.
        tf32: whether products may be taken in tf32 on a GPU.

    Attributes:
        steps: the operators and groups of maps, in order.
        became: by node that is asked for, the node of the rewritten graph that is computed.
    """

    def __init__(
        self, graph: Graph, keep: Iterable[Node] = (), streams: bool = True, tf32: bool = False
    ) -> None:
        self.graph, self.tf32 = graph, tf32
        self.keep = [n for n in keep if n not in graph.given]
        asked = {str(i): n for i, n in enumerate((*graph.outputs.values(), *self.keep))}
        wide = Graph(graph.name, regrouped(asked, graph.given), graph.given)
        new = rewritten(wide)
        self.became = {n: new[wide.outputs[name]] for name, n in asked.items()}
        found = {str(i): n for i, n in enumerate(self.became.values())}
        run = Graph(graph.name, found, graph.given)
        self.steps = compile_steps(run, streams=streams)
        needed = {*self.became.values(), *graph.given}
        last: dict[Node, int] = {}
        for i, step in enumerate(self.steps):
            for n in (*step.reads, *step.writes):
                last[n] = i
        self.release: list[list[Node]] = [[] for _ in self.steps]
        for n, i in last.items():
            if n not in needed:
                self.release[i].append(n)
        self._schedule = [
            (step.call, step.reads, step.writes, release, step.takes_out)
            for step, release in zip(self.steps, self.release, strict=True)
        ]
        self.leaves = [n for n in run.nodes() if n.op in LEAVES]

    def plan(self, batch: int, given: Iterable[Node] = ()) -> None:
        """Returns None: there is no plan, since operators run one after another."""

    def footprint(self, context: Context, given: Collection[Node] = ()) -> Footprint:
        """Returns the bytes that a call takes, its results included; nothing is computed."""
        known = [n for n in self.leaves if n.op is not Op.CONST]
        feed = {n: _without_memory(n, context) for n in (*known, *self.graph.given)}
        with Allocations(lazily=context.device.type == "cpu") as found:
            results = self(context._replace(device=META, over_ranks=alone), feed)
            footprint = found.footprint
        del results
        return footprint

    @torch.no_grad()
    def __call__(
        self, context: Context, feed: Mapping[Node, Tensor], out: Mapping[str, Tensor] | None = None
    ) -> dict[Node, Tensor]:
        """Returns the tensors of the outputs and of `keep`, by node.

        Args:
            context: the batch size, dtype and device.
            feed: the tensors of the leaves and given nodes.
            out: by name, tensors that outputs are written or copied to.
        """
        outputs = {name: self.became[node] for name, node in self.graph.outputs.items()}
        places = {outputs[name]: target for name, target in (out or {}).items()}
        values: dict[Node, Tensor] = {}
        for n in self.leaves:
            if n.op is Op.CONST:
                number = evaluate(n["value"], context.batch)
                values[n] = torch.tensor(number, dtype=context.dtype, device=context.device)
            else:
                values[n] = feed[n]
        for n in self.graph.given:
            values[n] = feed[n]
        with switches(context.device, self.tf32):
            for call, reads, writes, release, takes_out in self._schedule:
                given = {"out": places[writes[0]]} if takes_out and writes[0] in places else {}
                results = call(context, *[values[n] for n in reads], **given)
                values.update(zip(writes, results, strict=True))
                for n in release:
                    del values[n]
        for name, target in (out or {}).items():
            if (value := values[outputs[name]]) is not target:
                target.copy_(value)
        return {n: values[new] for n, new in self.became.items()}


def _without_memory(node: Node, context: Context) -> Tensor:
    """Returns what lies like the tensor of a node, and has no numbers."""
    dtype = torch.int64 if node.type.kind == "int" else context.dtype
    return torch.empty(concrete(node.shape, context.batch), dtype=dtype, device=META)
