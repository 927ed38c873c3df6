"""Who computes a contraction, decided by measurement and remembered on disk."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from statistics import median

import torch
import triton
from torch import Tensor

from ...compiler.graph.ir import Graph, Node, concrete
from ...compiler.lowering.kernel import base
from ..backend import Context
from . import codecache

ROUNDS = 5
Call = Callable[[], object]


def seconds(call: Call, device: torch.device) -> float:
    """The median of a few runs, after one that does not count."""

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


class Choices:
    """The fastest way, "fused" or "vendor", of every shape that was measured on a device.

    Kept in one file per device and versions, so that a shape is measured once.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        self.key = f"{name}, torch {torch.__version__}, triton {triton.__version__}"
        self.known: dict[str, str] = self._read()

    @property
    def file(self) -> str:
        """Name of the file of this device and versions."""
        plain = "".join(c if c.isalnum() or c in ".-" else "_" for c in self.key)
        return f"contractions-{plain}.json"

    def _read(self) -> dict[str, str]:
        text = codecache.stored(self.file)
        return {} if text is None else json.loads(text)

    def fastest(self, label: str, ways: Mapping[str, Callable[[], Call]]) -> str:
        """The name of the fastest way, measured if `label` is not known yet.

        Args:
            label: shapes and precision of what is measured.
            ways: by name, what makes the call to be timed.
        """
        if label not in self.known:
            times = {name: seconds(make(), self.device) for name, make in ways.items()}
            self.known = {**self._read(), **self.known, label: min(times, key=times.__getitem__)}
            codecache.store(self.file, json.dumps(self.known, indent=1, sort_keys=True) + "\n")
        return self.known[label]


def alone(node: Node) -> Graph:
    """A graph of one node, its operands given."""
    return Graph("contraction", {"out": node}, frozenset(map(base, node.inputs)))


def random_feed(node: Node, context: Context) -> dict[Node, Tensor]:
    """Random operands of a node."""
    return {
        x: torch.randn(concrete(x.shape, context.batch), dtype=context.dtype, device=context.device)
        for x in map(base, node.inputs)
    }
