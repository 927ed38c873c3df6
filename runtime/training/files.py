"""Every change that a run makes to its folder, through the operating system's own calls.

What is written is flushed to the disk before it is named, and a name is changed by one rename, so
that a run that ends at any of these calls leaves the folder as it was before or as it is after.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

NEW = ".new"  # what ends the name of something that is going to be renamed
LINKLESS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, None)


@contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    """Opens a file inside a `with` statement."""
    descriptor = os.open(path, flags | getattr(os, "O_CLOEXEC", 0), 0o666)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def write(path: Path, data: bytes) -> None:
    """Writes a new file, and flushes it to the disk."""
    with opened(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as descriptor:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)


def flush_folder(path: Path) -> None:
    """Flushes the names that are in a folder to the disk."""
    with opened(path, os.O_RDONLY) as descriptor:
        os.fsync(descriptor)


def make_folder(path: Path) -> None:
    """Makes a folder, and those above it, where there is none."""
    if not path.is_dir():
        make_folder(path.parent)
        os.mkdir(path)
        flush_folder(path.parent)


def replace(path: Path, data: bytes) -> None:
    """Puts a file in the place of another at once."""
    new = path.with_name(path.name + NEW)
    write(new, data)
    os.replace(new, path)
    flush_folder(path.parent)


def point(path: Path, target: str) -> None:
    """Makes a link to a place in the same folder, at once in the place of what was there.

    Where the file system has no links, it is a file with the place as its text.
    """
    if path.is_symlink() and os.readlink(path) == target:
        return
    new = path.with_name(path.name + NEW)
    if os.path.lexists(new):
        os.unlink(new)
    try:
        os.symlink(target, new)
    except OSError as error:
        if error.errno not in LINKLESS:
            raise
        write(new, f"{target}\n".encode())
    os.replace(new, path)
    flush_folder(path.parent)


def write_folder(path: Path, parts: Mapping[str, bytes]) -> None:
    """Writes a new folder of files.

    Nothing of it is named elsewhere before all of it is on the disk.
    """
    os.mkdir(path)
    for name, content in parts.items():
        write(path / name, content)
    flush_folder(path)
    flush_folder(path.parent)


def remove(path: Path) -> None:
    """Removes a file, or a folder with all that is in it."""
    if path.is_symlink() or not path.is_dir():
        os.unlink(path)
        return
    for inside in sorted(path.iterdir()):
        remove(inside)
    os.rmdir(path)
