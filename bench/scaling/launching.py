"""Processes of one thread each that are the ranks of a gloo group, and do what they are asked."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import newtriton as nt

from ...compiler.graph.errors import NewtritonError

PATIENCE = 600.0  # seconds in which a rank must have answered
Held = dict[str, Any]
Asked = Callable[[nt.DataParallel, Held], Any]


@contextmanager
def ranks(size: int) -> Iterator[Callable[[Asked], list[Any]]]:
    """Starts ranks and yields what asks all of them to call a function; ends them behind it.

    The function gets the group and a dictionary that its rank keeps between calls.

    Args:
        size: how many ranks there are.

    Raises:
        NewtritonError: a rank does not answer.
    """
    context, pipes, processes = mp.get_context("spawn"), list[Any](), []
    with tempfile.TemporaryDirectory() as folder:
        for rank in range(size):
            ours, theirs = context.Pipe()
            args = (rank, size, str(Path(folder) / "store"), theirs)
            process = context.Process(target=_serve, args=args, daemon=True)
            process.start()
            theirs.close()
            pipes.append(ours)
            processes.append(process)

        def ask(function: Asked) -> list[Any]:
            for pipe in pipes:
                pipe.send(function)
            return [_answer(pipe, rank) for rank, pipe in enumerate(pipes)]

        try:
            yield ask
        finally:
            for pipe, process in zip(pipes, processes, strict=True):
                pipe.close()
                process.join(PATIENCE)


def _answer(pipe: Any, rank: int) -> Any:
    """Returns what a rank has found."""
    try:
        if pipe.poll(PATIENCE):
            return pipe.recv()
    except (EOFError, OSError):
        pass
    raise NewtritonError(f"rank {rank} has ended, or does not answer: its own error says why")


def _serve(rank: int, size: int, store: str, pipe: Any) -> None:
    """Does what is asked until nobody asks any more."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    where = {"init_method": f"file://{store}", "timeout": timedelta(seconds=PATIENCE)}
    dist.init_process_group("gloo", rank=rank, world_size=size, **where)
    parallel, held = nt.DataParallel(), Held()
    while True:
        try:
            function = pipe.recv()
        except EOFError:
            break
        pipe.send(function(parallel, held))
    dist.destroy_process_group()
