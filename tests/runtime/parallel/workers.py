"""Processes that stand for ranks: started once for each number of them, and asked often."""

from __future__ import annotations

import os
import tempfile
import traceback
from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import cache
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from newtriton.runtime.parallel.data_parallel import DataParallel
from newtriton.runtime.parallel.ranks import Ranks

PATIENCE = 120.0


class Workers:
    """Ranks of a gloo group, each a process of one thread.

    Args:
        size: how many there are.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        file = tempfile.mktemp(prefix="ranks")
        context = mp.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for rank in range(size):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, size, file, theirs), daemon=True)
            process.start()
            self._pipes.append(ours)
            self._processes.append(process)

    def __call__(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """Returns what each rank's `function(parallel, *args)` returned.

        Raises:
            AssertionError: a rank has raised an error, whose text it gives, or does not answer.
        """
        answers = self.ask(range(self.size), range(self.size), function, *args)
        failed = [f"rank {r}: {text}" for r, (ok, text) in enumerate(answers) if not ok]
        assert not failed, "\n".join(failed)
        return [found for _, found in answers]

    def ask(
        self,
        ranks: Iterable[int],
        answering: Iterable[int],
        function: Callable[..., Any],
        *args: Any,
    ) -> list[tuple[bool, Any]]:
        """Calls a function on some ranks; returns the answers of some of them.

        Each is whether the call has returned, and what; or the text of the error that it raised.
        """
        for rank in ranks:
            self._pipes[rank].send((function, args))
        answers = []
        for rank in answering:
            pipe = self._pipes[rank]
            assert pipe.poll(PATIENCE), f"rank {rank} does not answer, others: {answers}"
            answers.append(pipe.recv())
        return answers

    def kill(self) -> None:
        """Ends all ranks, those that are stopped, too."""
        for process in self._processes:
            process.kill()


@cache
def workers(size: int) -> Workers:
    """Returns the ranks of a group of a size."""
    return Workers(size)


def _serve(rank: int, size: int, file: str, pipe: Connection) -> None:
    """Does what is asked until the test run ends."""
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=size)
    parallel = DataParallel()
    while True:
        try:
            function, args = pipe.recv()
        except EOFError:
            return
        parallel.ranks.traffic.reset()
        try:
            pipe.send((True, function(parallel, *args)))
        except BaseException:
            pipe.send((False, traceback.format_exc()))


def fresh(parallel: DataParallel, timeout: float = 6.0) -> DataParallel:
    """Returns the same ranks on a group of their own, which may be left broken."""
    return DataParallel(dist.new_group(timeout=timedelta(seconds=timeout)))


def with_options(parallel: DataParallel, **options: Any) -> DataParallel:
    """Returns the same ranks with other options."""
    return DataParallel(parallel.group, **options)


def equal_everywhere(ranks: Ranks, tensor: torch.Tensor) -> bool:
    """Whether a tensor is the same on all ranks, to the bit."""
    rows = ranks.gather(tensor.flatten())
    return all(torch.equal(row, rows[0]) for row in rows)
