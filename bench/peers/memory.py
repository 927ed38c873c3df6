"""The most memory that a call takes, in a process that makes nothing else.

On a CPU it is what the resident set grows by at its peak, on a GPU what PyTorch has allocated. The
call is made on one sample fewer before: code is loaded, ours has derived its programs, and nothing
lies there for this batch. A call that is compiled for its batch is made on the whole batch before.
Calls run in one thread here.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import torch

from ...compiler.graph.errors import NewtritonError
from .apart.resident import peak_of
from .measuring import Place, Row
from .problem import Problem
from .sides import SIDES, clause

Task = tuple[str, str, str]  # a side's name, a provider's, an operation


def peak(name: str, batch: int, device: str, task: Task) -> int:
    """Returns the most bytes that a call takes here: to be called in a new process.

    Raises:
        NewtritonError: the side has no such call.
    """
    side, provider, operation = task
    problem = Problem.of(name, batch, device)
    calls = [c for c in SIDES[side].calls(problem, [operation]) if c.provider == provider]
    if not calls:
        raise NewtritonError(f"{provider} has no call for {operation!r} here")
    (call,) = calls
    if call.peak is not None:
        return call.peak()
    whole = problem.samples
    problem.samples = whole if call.compiles else whole - 1
    call.run()
    problem.samples = whole
    if problem.x.device.type == "cpu":
        return peak_of(call.run)
    before = torch.cuda.memory_allocated(problem.x.device)
    torch.cuda.reset_peak_memory_stats(problem.x.device)
    call.run()
    return torch.cuda.max_memory_allocated(problem.x.device) - before


def _send(pipe: Connection, call: Callable[[], Any]) -> None:
    """Sends what a call returns, or why it fails; it is made in one thread."""
    torch.set_num_threads(1)
    try:
        pipe.send((True, call()))
    except Exception as error:
        pipe.send((False, clause(error)))


def in_own_process(call: Callable[[], Any]) -> Any:
    """Returns what a call returns in a new process, which has imported this and no more.

    Raises:
        NewtritonError: the call fails, or its process ends.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    ours, theirs = context.Pipe(False)
    process = context.Process(target=_send, args=(theirs, call), daemon=True)
    process.start()
    theirs.close()
    try:
        good, result = ours.recv()
    except EOFError:
        process.join()
        good, result = False, f"its process ended with code {process.exitcode}"
    process.join()
    if not good:
        raise NewtritonError(result)
    return result


def rows(
    name: str, batch: int, device: str, place: Place, tasks: Sequence[Task], workers: int = 2
) -> Iterator[Row]:
    """Yields a row for each call, in MB, beside the gradient's by PyTorch's autograd.

    Args:
        name: the network's name.
        batch: the batch size.
        device: where the calls are made.
        place: where the rows stand.
        tasks: what is measured.
        workers: the processes at a time.
    """
    unit = "reverse", SIDES["reverse"].providers[0], "gradient"
    every = list(dict.fromkeys([unit, *tasks]))

    def measured(task: Task) -> int | str:
        try:
            return in_own_process(partial(peak, name, batch, device, task))
        except NewtritonError as error:
            return str(error)

    with ThreadPoolExecutor(1 if device == "cuda" else workers) as pool:
        found: Mapping[Task, int | str] = dict(zip(every, pool.map(measured, every), strict=True))
    gradient = found[unit]
    for task in tasks:
        row = place.row(task[2], task[1], "memory", "MB")
        taken = found[task]
        if isinstance(taken, str):
            yield {**row, "refused": taken}
            continue
        ratio = dict[str, float]()
        if isinstance(gradient, int) and gradient > 0:
            ratio["per_gradient"] = float(f"{taken / gradient:.4g}")
        yield {**row, "y_value_50": round(taken / 1e6, 3), **ratio}
