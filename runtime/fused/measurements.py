"""Who is faster at a contraction: timed once per shape on a device, and remembered on disk."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from statistics import median

import torch
import triton
from torch import Tensor

from ...compiler.graph.ir import Graph, Node, concrete
from ...compiler.lowering.kernel import base
from ..backend import Context
from . import codecache
from .compiling import compile_here, distinct
from .executor import FusedExecutor
from .selection import Selection
from .settings import Settings

ROUNDS = 5
WAYS = ("fused", "vendor")
Call = Callable[[], object]


def seconds(call: Call, device: torch.device) -> float:
    """Returns the median time of a few calls, after one that does not count."""

    def once() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    once()
    return median(once() for _ in range(ROUNDS))


class Measurements:
    """The fastest way to do everything that was measured on a device.

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
        """The name of the file of this device and these versions."""
        plain = "".join(c if c.isalnum() or c in ".-" else "_" for c in self.machine)
        return f"contractions-{plain}.json"

    def _read(self) -> dict[str, str]:
        text = codecache.stored(self.file)
        return {} if text is None else json.loads(text)

    def fastest(self, key: str, ways: Mapping[str, Callable[[], Call]]) -> str:
        """Returns the name of the fastest way, which is measured if the key is not known yet.

        Args:
            key: what is done, in words that hold all that its time depends on.
            ways: by name, what makes the call to be timed.
        """
        if key not in self.fastest_of:
            times = {name: seconds(make(), self.device) for name, make in ways.items()}
            fastest = min(times, key=times.__getitem__)
            self.fastest_of = {**self._read(), **self.fastest_of, key: fastest}
            text = json.dumps(self.fastest_of, indent=1, sort_keys=True)
            codecache.store(self.file, f"{text}\n")
        return self.fastest_of[key]


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
                unknown.setdefault(key, node)
        plans = [
            self._alone(node, who).plan(batch, map(base, node.inputs))
            for node in unknown.values()
            for who in WAYS
        ]
        compile_here(distinct(job for plan in plans for job in plan.jobs("")))

    def fused_is_faster(self, node: Node, batch: int) -> bool:
        """Whether our kernel computes a contraction faster, measured if it is not known yet."""
        key = key_of(node, batch, self.settings.precision)
        ways = {who: partial(self._call, node, batch, who) for who in WAYS}
        return self.measurements.fastest(key, ways) == "fused"

    def _alone(self, node: Node, who: str) -> FusedExecutor:
        """Returns a contraction alone, computed by our kernel or by the vendor's library."""
        graph = Graph("contraction", {"out": node}, frozenset(map(base, node.inputs)))
        settings = replace(self.settings, contractions=who, record=None)
        return FusedExecutor(graph, (), Selection(settings))

    def _call(self, node: Node, batch: int, who: str) -> Call:
        """Returns the call that computes a contraction of random operands."""
        context = Context(batch, torch.float32, self.measurements.device)
        executor, feed = self._alone(node, who), _random_feed(node, context)
        return lambda: executor(context, feed)


def _random_feed(node: Node, context: Context) -> dict[Node, Tensor]:
    """Returns random operands of a node."""
    return {
        x: torch.randn(concrete(x.shape, context.batch), dtype=context.dtype, device=context.device)
        for x in map(base, node.inputs)
    }
