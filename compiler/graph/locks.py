"""Locks of a process: a thread may take one again, and a forked process finds them free."""

from __future__ import annotations

import os
from threading import RLock
from types import TracebackType
from weakref import WeakSet

_locks: WeakSet[Lock] = WeakSet()


class Lock:
    """A lock inside whose `with` statement one thread is at a time.

    A process that is forked meanwhile has no thread that would give it back: it is free there.
    """

    def __init__(self) -> None:
        self._lock = RLock()
        _locks.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()

    def free(self) -> None:
        """Frees the lock, whoever has it."""
        self._lock = RLock()


def _free_all() -> None:
    for lock in _locks:
        lock.free()


os.register_at_fork(after_in_child=_free_all)

# For what PyTorch and Triton have one of in a process: switches, the interpreter, its compiler.
PROCESS = Lock()
