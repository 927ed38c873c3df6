"""Launches recorded once and replayed, as CUDA graphs.

A recording holds addresses. It stands for a call whose parameters and tape lie where they lay
then: a tape is one block, of which PyTorch's allocator has few. Data, directions and results lie
elsewhere in every call: they are copied into memory of the plan and out of it, unless they are so
large that copies take longer than launches. What a call returns is the caller's own.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

MOST = 16  # recordings that are kept of one plan

Work = Callable[[], None]
Record = Callable[[Work], Work]


@dataclass(frozen=True)
class _Recorder:
    """What recordings of a device share.

    Attributes:
        stream: the stream that records.
        pool: the memory that operators allocate from while they are recorded. Nothing in it
            outlives a call.
        first: a recording that is never replayed. A pool dies with its last recording, and PyTorch
            asserts that it is alive: this one outlives every model.
    """

    stream: torch.cuda.Stream
    pool: Any
    first: torch.cuda.CUDAGraph


@cache
def _recorder(device: int) -> _Recorder:
    """Returns the recorder of a GPU by its number."""
    stream, pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()
    something = torch.empty(1, device=torch.device("cuda", device))
    first = torch.cuda.CUDAGraph()
    _capture(first, stream, pool, something.zero_)  # PyTorch warns of recordings without launches
    return _Recorder(stream, pool, first)


def _capture(graph: torch.cuda.CUDAGraph, stream: Any, pool: Any, work: Callable[[], Any]) -> None:
    """Records work on a stream.

    Other threads may do as they like meanwhile: those that load data pin memory, which a capture of
    the whole process would forbid. `torch.cuda.graph` empties the cache of the allocator, so that
    addresses would change: it is not used here.
    """
    current = torch.cuda.current_stream(stream.device)
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        graph.capture_begin(pool=pool, capture_error_mode="thread_local")
        try:
            work()
        except BaseException:
            with suppress(RuntimeError):  # a capture that has failed says so again at its end
                graph.capture_end()
            raise
        graph.capture_end()
    current.wait_stream(stream)


def cuda_graph(work: Callable[[], Any]) -> Work:
    """Records the launches of some work as a CUDA graph, and returns what replays them.

    Raises:
        RuntimeError: something cannot be recorded. The pool is given up then: PyTorch 2.11 leaves
            it recording (pytorch#180395).
    """
    recorder, graph = _recorder(torch.cuda.current_device()), torch.cuda.CUDAGraph()
    try:
        _capture(graph, recorder.stream, recorder.pool, work)
    except RuntimeError:
        _recorder.cache_clear()
        raise
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
