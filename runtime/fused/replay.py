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

MOST = 16  # recordings that are kept of one plan

Work = Callable[[], None]
Record = Callable[[Work], Work]


@cache
def _pool() -> Any:
    """Returns the memory that operators allocate from while they are recorded.

    Nothing in it outlives a call.
    """
    return torch.cuda.graph_pool_handle()


def cuda_graph(work: Work) -> Work:
    """Records the launches of some work as a CUDA graph, and returns what replays them.

    `torch.cuda.graph` empties the cache of the allocator, so that addresses would change: it is not
    used here.
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
    """The recordings of one plan, by the addresses that its work lies at.

    Work at new addresses is run, the second time it is recorded, from then on it is replayed. The
    first run compiles and loads kernels, which a recording must not do.

    Args:
        record: what records work; None runs it every time.
    """

    def __init__(self, record: Record | None) -> None:
        self.record = record
        self.known: OrderedDict[Hashable, Work | None] = OrderedDict()

    def __call__(self, addresses: Callable[[], Hashable], work: Work) -> None:
        """Runs, records or replays work.

        Args:
            addresses: where all that the work reads and writes outside the plan lies.
            work: makes the launches.
        """
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
