"""Calls in several forked processes: none outlives the calls, and none that dies is waited for."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import Any, TypeVar

from ..compiler.graph.errors import NewtritonError

T = TypeVar("T")
PATIENCE = 5.0  # seconds that a process which is told to end has for it
WATCH = 0.25  # seconds between looks at the process that waits


class Lost(NewtritonError):
    """Calls whose processes were killed."""


def in_processes(calls: Sequence[Callable[[], T]], workers: int) -> Iterator[T]:
    """Yields what calls return, as they come.

    Whoever stops asking, Ctrl-C too, ends the processes.

    Args:
        calls: the calls; results and exceptions are pickled, the calls are not.
        workers: the most processes at a time.

    Raises:
        Lost: in the end, where processes were killed.
        Exception: what a call raises.
    """
    left, lost = deque(range(len(calls))), list[str]()
    running: dict[Connection, BaseProcess] = {}
    try:
        while left or running:
            while left and len(running) < workers:
                pipe, process = _started(calls, list(running))
                running[pipe] = process
                _send(pipe, left.popleft())
            for pipe in map(_as_connection, wait(list(running))):
                try:
                    good, result = pipe.recv()
                except (EOFError, ConnectionError):
                    lost.append(_ended(pipe, running.pop(pipe)))
                    continue
                if left:
                    _send(pipe, left.popleft())
                else:
                    _ended(pipe, running.pop(pipe))
                if not good:
                    raise result
                yield result
    finally:
        for process in running.values():
            process.terminate()
        for pipe, process in running.items():
            _ended(pipe, process)
    if lost:
        raise Lost(
            f"{len(lost)} of {len(calls)} calls were lost with their processes, which ended by "
            f"{', '.join(sorted(set(lost)))}: there may be too little memory for {workers} at once"
        )


def _as_connection(pipe: Any) -> Connection:
    return pipe


def _started(
    calls: Sequence[Callable[[], Any]], others: Sequence[Connection]
) -> tuple[Any, BaseProcess]:
    """Returns a new process that makes calls by their numbers, and the pipe to it."""
    context = multiprocessing.get_context("fork")
    pipe, theirs = context.Pipe()
    arguments = theirs, (pipe, *others), calls, os.getpid()
    process = context.Process(target=_serve, args=arguments, daemon=True)
    process.start()
    theirs.close()
    return pipe, process


def _send(pipe: Connection, number: int) -> None:
    with suppress(OSError):  # a process that has died is met when its answer is waited for
        pipe.send(number)


def _ended(pipe: Connection, process: BaseProcess) -> str:
    """Waits for the end of a process that has nothing left to do, and returns how it ended."""
    pipe.close()
    process.join(PATIENCE)
    if process.exitcode is None:
        process.kill()
        process.join()
    code = process.exitcode or 0
    process.close()
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _serve(
    pipe: Connection,
    inherited: Sequence[Connection],
    calls: Sequence[Callable[[], Any]],
    parent: int,
) -> None:
    """Makes calls until the other end of the pipe is closed, or the process there has died."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))  # what is begun is undone
    Thread(target=_end_with, args=(parent,), daemon=True).start()
    for other in inherited:
        other.close()
    with suppress(EOFError, OSError):
        while True:
            pipe.send_bytes(_made(calls[pipe.recv()]))


def _end_with(parent: int) -> None:
    """Ends this process after another one: pipes stay open in those that were forked later."""
    while os.getppid() == parent:
        time.sleep(WATCH)
    os.kill(os.getpid(), signal.SIGTERM)


def _made(call: Callable[[], Any]) -> bytes:
    """Returns what a call returned or raised, pickled."""
    try:
        return pickle.dumps((True, call()))
    except Exception as error:
        return _pickled(error)


def _pickled(error: Exception) -> bytes:
    """Returns an exception, or its text where it cannot be pickled."""
    try:
        text = pickle.dumps((False, error))
        pickle.loads(text)
    except Exception:
        return pickle.dumps((False, NewtritonError(f"{type(error).__name__}: {error}")))
    return text
