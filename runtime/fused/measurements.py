"""Who is faster at a contraction, and right: tried once per shape on a device, remembered on disk.

A contraction is run alone, on operands laid out and rounded as it reads them, by our kernel and by
the vendor's library. Compilers have been wrong about convolutions in eight warps (pytorch#173068,
#183989), silently: where our kernel's numbers are not the library's, it is tried again in four.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

import torch
import triton
from torch import Tensor

from ...compiler.graph import ops
from ...compiler.graph.ir import Graph, Node, concrete
from ...compiler.lowering.operands import contraction_operands
from ...compiler.lowering.precision import is_rounded
from ..aten.executor import AtenExecutor
from ..backend import Context
from . import codecache, pipeline
from .chips import on_device
from .compiling import compile_here, distinct
from .plan import Plan
from .replay import cuda_graph
from .selection import BY_VENDOR, WAYS, Selection
from .settings import Settings
from .storage import dtype_of

ROUNDS = 5
TOLERANCE = 1e-3  # of the root mean square: sums in another order differ by far less
Call = Callable[[], Tensor]


def seconds(call: Call, device: torch.device) -> float:
    """Returns the median time of a call, after one that does not count.

    On a GPU the call is recorded and replayed, so that its launches cost nothing, and what it reads
    is flushed from the cache in between.
    """
    if device.type == "cuda":
        replay = cuda_graph(call)
        milliseconds: Any = triton.testing.do_bench(replay, 5, 30, return_mode="median")
        return milliseconds / 1e3

    def once() -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    once()
    return median(once() for _ in range(ROUNDS))


class Measurements:
    """The fastest way that is right of everything that was measured on a device.

    They are kept in one file per device and versions, so that nothing is measured twice.

    Attributes:
        device: where calls are timed.
        fastest_of: the name of the fastest way, by what was measured.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        self.machine = f"{name}, torch {torch.__version__}, triton {triton.__version__}"
        self.fastest_of: dict[str, str] = self._read()

    @property
    def file(self) -> str:
        """The name of the file of this device, these versions and these kernels."""
        plain = "".join(c if c.isalnum() or c in ".-" else "_" for c in self.machine)
        return f"contractions-{plain}-{codecache.kernels_digest()[:8]}.json"

    def _read(self) -> dict[str, str]:
        text = codecache.stored(self.file)
        return {} if text is None else json.loads(text)

    def fastest(self, key: str, ways: Mapping[str, Callable[[], Call]]) -> str:
        """Returns the name of the fastest way, which is measured if the key is not known yet.

        Ways that give other numbers than the last one are left out, and a warning says so.

        Args:
            key: what is done, in words that hold all that its time depends on.
            ways: by name, what makes the call to be timed; the last one is trusted, and those
                before it are tried until one agrees with it.
        """
        if key not in self.fastest_of:
            fastest = self._measured(key, ways)
            self.fastest_of = {**self._read(), **self.fastest_of, key: fastest}
            text = json.dumps(self.fastest_of, indent=1, sort_keys=True)
            codecache.store(self.file, f"{text}\n")
        return self.fastest_of[key]

    def _measured(self, key: str, ways: Mapping[str, Callable[[], Call]]) -> str:
        *others, trusted = ways
        reference = ways[trusted]()
        expected = reference()
        for name in others:
            call = ways[name]()
            error = difference(call(), expected)
            if error <= TOLERANCE:
                faster = seconds(call, self.device) < seconds(reference, self.device)
                return name if faster else trusted
            warnings.warn(
                f"{key}: {name} is wrong on this GPU ({error:.0e} of the root mean square beside "
                f"{trusted}), and is not used",
                stacklevel=2,
            )
        return trusted


def difference(found: Tensor, expected: Tensor) -> float:
    """Returns the largest difference, relative to the root mean square; infinite for NaN."""
    scale = float(expected.double().square().mean().sqrt())
    largest = float((found.double() - expected.double()).abs().nan_to_num(torch.inf).max())
    return largest / max(scale, torch.finfo(torch.float32).tiny)


def key_of(node: Node, batch: int, precision: str) -> str:
    """Returns all that the time of a contraction depends on: not where it stands in a network."""
    operands = ", ".join(str(x.type) for x in node.inputs)
    attributes = sorted(node.attributes.items())
    return f"{precision}, batch {batch}: {node.op.value}({operands}) → {node.type} {attributes}"


class Trials:
    """Contractions that are run alone, by our kernel and by the vendor's library, and timed.

    This is the `Comparison` of a `Selection` on a device.
    """

    def __init__(self, settings: Settings, device: torch.device) -> None:
        self.settings, self.measurements = settings, Measurements(device)

    def prepare(self, nodes: Sequence[Node], batch: int) -> None:
        """Compiles together, on a GPU, the kernels of all contractions that are not known yet."""
        if self.measurements.device.type != "cuda":
            return
        unknown: dict[str, Node] = {}
        for node in nodes:
            key = key_of(node, batch, self.settings.precision)
            if key not in self.measurements.fastest_of:
                unknown.setdefault(key, alone(node))
        ways = WAYS[0], WAYS[-1]  # those between are for what should not happen
        plans = [self._plan(node, batch, way) for node in unknown.values() for way in ways]
        with on_device(self.measurements.device):
            compile_here(distinct(job for plan in plans for job in plan.jobs("")))

    def fastest(self, node: Node, batch: int) -> str:
        """Returns who computes a contraction, measured if it is not known yet."""
        key = key_of(node, batch, self.settings.precision)
        if key in self.measurements.fastest_of:
            return self.measurements.fastest_of[key]
        context = Context(batch, torch.float32, self.measurements.device)
        node = alone(node)
        leaves = random_leaves(node, context)
        ways = {way: partial(self._call, node, context, way, leaves) for way in WAYS}
        with on_device(self.measurements.device):
            return self.measurements.fastest(key, ways)

    def _plan(self, node: Node, batch: int, way: str) -> Plan:
        """Returns a contraction of given operands, computed in one way."""
        operands = contraction_operands(node, by_vendor=way == BY_VENDOR)
        graph = Graph("contraction", {"out": node}, frozenset(operands))
        settings = replace(self.settings, contractions=way, record=None)
        return pipeline.plan(graph, batch, Selection(settings))

    def _call(self, node: Node, context: Context, way: str, leaves: Mapping[Node, Tensor]) -> Call:
        """Returns the call that computes a contraction whose operands lie there."""
        plan = self._plan(node, context.batch, way)
        operands = {str(i): x for i, x in enumerate(plan.schedule.graph.given)}
        values = AtenExecutor(Graph("operands", operands))(context, leaves)
        feed = {x: value.to(dtype_of(x)).contiguous() for x, value in values.items()}
        return lambda: plan(context, feed)(node)


def alone(node: Node) -> Node:
    """Returns the same contraction of leaves, rounded where its operands are."""
    inputs = []
    for i, x in enumerate(node.inputs):
        leaf = ops.input_(f"operand {i}", x.shape)
        inputs.append(ops.map_(x["expr"], leaf) if is_rounded(x) else leaf)
    return ops.make(node.op, *inputs, **node.attributes)


def random_leaves(node: Node, context: Context) -> dict[Node, Tensor]:
    """Returns random operands of few bits, which no rounding changes."""
    leaves = [x.inputs[0] if is_rounded(x) else x for x in node.inputs]
    return {
        x: torch.randn(concrete(x.shape, context.batch), device=context.device).bfloat16().float()
        for x in leaves
    }
