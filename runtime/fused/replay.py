"""Launches recorded once and replayed, as CUDA graphs.

A recording holds addresses. It stands for a call whose inputs, results and scratch lie where they
lay then; a training loop takes and returns memory in the same order every step, so from its second
or third step on PyTorch's allocator gives it the same addresses. Nothing is copied, and what a call
returns is the caller's own.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import cache
from typing import Any

import torch

MOST = 16  # recordings kept of one plan

Work = Callable[[], None]
Record = Callable[[Work], Work]


@cache
def _pool() -> Any:
    """Memory for what operators allocate while they are recorded; nothing in it outlives a call."""
    return torch.cuda.graph_pool_handle()


def cuda_graph(work: Work) -> Work:
    """A CUDA graph of the work's launches.

    Not by `torch.cuda.graph`, which empties the allocator's cache: addresses would change.
    """
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        graph.capture_begin(pool=_pool())
        try:
            work()
        finally:
            graph.capture_end()
    torch.cuda.current_stream().wait_stream(stream)
    return graph.replay


class Replays:
    """Recordings of one plan by addresses: run the first time, recorded the second, then replayed.

    The first run compiles and loads kernels, which a recording must not. `record` None never
    records.
    """

    def __init__(self, record: Record | None) -> None:
        self.record = record
        self.known: OrderedDict[Hashable, Work | None] = OrderedDict()

    def __call__(self, addresses: Callable[[], Hashable], work: Work) -> None:
        """Does the work, which lies at `addresses`."""
        if self.record is None:
            work()
            return
        key = addresses()
        if key not in self.known:
            work()
            self.known[key] = None
        else:
            replay = self.known[key] or self._recorded(work)
            replay()
            if self.record is not None:
                self.known[key] = replay
        self.known.move_to_end(key)
        if len(self.known) > MOST:
            self.known.popitem(last=False)

    def _recorded(self, work: Work) -> Work:
        assert self.record is not None
        try:
            return self.record(work)
        except RuntimeError as error:
            self.record = None
            warnings.warn(
                f"launches cannot be recorded and are made one by one: {error}", stacklevel=2
            )
            return work
