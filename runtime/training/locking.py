"""One process at a time trains in a folder: a lock that the system gives back when it ends.

The lock is the process's, by fcntl: a worker that it forks does not keep it. Reading a run, as to
evaluate or to draw it, takes none.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path

from ...compiler.graph.errors import NewtritonError
from ..disk import unwritable
from . import files

try:
    import fcntl
except ImportError:  # of systems that are no Unix
    fcntl = None

NAME = "lock"
WITHOUT = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
HOLDER = 200  # bytes of what a lock says
_HELD: dict[str, int] = {}  # folders in which this process trains, and its number


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other processes, and other threads of this one, from training in a folder meanwhile.

    Raises:
        NewtritonError: one of them does, or the folder cannot be written.
    """
    key, own = os.path.realpath(folder), os.getpid()
    if _HELD.get(key) == own:  # to open and close the file again would give its lock back
        raise _taken(folder, f"process {own}, this one")
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with ExitStack() as held:
        try:
            descriptor = held.enter_context(files.opened(folder / NAME, flags))
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EEXIST, f"{NAME} is no plain file")
            _lock(folder, descriptor)
        except OSError as error:
            raise unwritable(folder, error) from error
        _HELD[key] = own
        held.callback(_HELD.pop, key)
        yield


def _lock(folder: Path, descriptor: int) -> None:
    """Takes the lock, and writes down who has it."""
    try:
        if fcntl is None:
            raise OSError(errno.ENOSYS, "no fcntl")
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in WITHOUT:
            warnings.warn(
                f"{folder} is where files have no locks ({error.strerror}): see to it yourself "
                "that one process at a time trains there",
                stacklevel=2,
            )
            return
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise
        lines = os.pread(descriptor, HOLDER, 0).decode("utf-8", "replace").splitlines()
        holder = "".join(filter(str.isprintable, lines[0])) if lines else "another process"
        raise _taken(folder, holder) from error
    since = datetime.now().astimezone().isoformat(" ", "seconds")
    text = f"process {os.getpid()} on {socket.gethostname()}, since {since}\n"
    with suppress(OSError):  # the lock is held, whether or not there is room for a name
        os.ftruncate(descriptor, 0)
        files.os.write(descriptor, text.encode())


def _taken(folder: Path, holder: str) -> NewtritonError:
    """Returns the error that something else trains in a folder."""
    return NewtritonError(
        f"{folder} is being trained in by {holder}: wait for its end, end it, or choose another "
        "folder"
    )
