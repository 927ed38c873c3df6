"""Every change that a run makes to its folder, through the operating system's own calls.

What is written is flushed to the disk before it is named, and a name is changed by one rename, so
that a run that ends at any of these calls leaves the folder as it was before or as it is after.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

NEW = ".new"  # what ends the name of something that is going to be renamed


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
    """Makes a link to a place in the same folder, at once in the place of what was there."""
    if path.is_symlink() and os.readlink(path) == target:
        return
    new = path.with_name(path.name + NEW)
    if new.is_symlink():
        os.unlink(new)
    os.symlink(target, new)
    os.replace(new, path)
    flush_folder(path.parent)


def share(path: Path, source: Path) -> None:
    """Gives a file a second name; a copy where the file system has one name only."""
    try:
        os.link(source, path)
    except OSError:
        write(path, source.read_bytes())


def write_folder(path: Path, parts: Mapping[str, bytes | Path]) -> None:
    """Writes a new folder of files, each new or a second name of another.

    Nothing of it is named elsewhere before all of it is on the disk.
    """
    os.mkdir(path)
    for name, content in parts.items():
        if isinstance(content, Path):
            share(path / name, content)
        else:
            write(path / name, content)
    flush_folder(path)
    flush_folder(path.parent)


def remove_folder(path: Path) -> None:
    """Removes a folder of files."""
    for inside in sorted(path.iterdir()):
        os.unlink(inside)
    os.rmdir(path)
