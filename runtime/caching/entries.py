"""Files that appear as a whole, and are told by a checksum from what others have left there.

Several processes may write one at once: the last wins. A process that is killed leaves a file under
a name that nobody reads, which is removed a day later.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from secrets import token_hex

NEW = ".new-"  # in the names of files that are going to be renamed
DAY = 86_400.0  # seconds
MOST = 1 << 28  # bytes: no entry is as large


def checksum(name: str, data: bytes) -> str:
    """Returns the SHA-256 of a file, in hexadecimal digits; that of its name is in it."""
    return hashlib.sha256(name.encode() + b"\0" + data).hexdigest()


def read(path: Path) -> bytes | None:
    """Returns what our own regular file holds; None where there is none, or it cannot be read."""
    with suppress(OSError):
        # Neither a link is followed nor a pipe waited for.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(path, flags)
        try:
            status = os.fstat(descriptor)
            ours = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
            return _read(descriptor) if ours and status.st_size <= MOST else None
        finally:
            os.close(descriptor)
    return None


def _read(descriptor: int) -> bytes:
    return b"".join(iter(lambda: os.read(descriptor, 1 << 20), b""))


def replace(path: Path, data: bytes) -> None:
    """Puts a file in the place of another, or of none, at once.

    Raises:
        OSError: it cannot be written; what was there is there.
    """
    _sweep(path.parent)
    new = path.with_name(f".{path.name}{NEW}{token_hex(8)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(new, flags, 0o600)
    try:
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        finally:
            os.close(descriptor)
        os.replace(new, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(new)
        raise


@cache
def _sweep(folder: Path) -> None:
    """Removes what processes that were killed have left in a folder, once in a process."""
    with suppress(OSError):
        for path in folder.glob(f".*{NEW}*"):
            if time.time() - path.lstat().st_mtime > DAY:
                path.unlink()
