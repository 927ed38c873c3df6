"""What is read from disk: plain files, no larger than they may be, and JSON that says things once.

Nothing is waited for: a pipe or a device in the place of a file is refused before it is opened.
"""

from __future__ import annotations

import json
import os
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ..compiler.graph.errors import NewtritonError

TEXT = 1 << 30  # bytes: no file of records is larger


def unreadable(path: Path, error: OSError | str) -> NewtritonError:
    """Returns the error that a file or a folder cannot be read."""
    reason = error if isinstance(error, str) else error.strerror or error
    return NewtritonError(f"{path} cannot be read: {reason}")


def unwritable(folder: Path, error: OSError) -> NewtritonError:
    """Returns the error that a folder cannot be written."""
    return NewtritonError(
        f"{folder} cannot be written ({error.strerror or error}): make room, make it writable, or "
        "choose another folder"
    )


@contextmanager
def opened(path: Path, most: int | None = None) -> Iterator[BinaryIO]:
    """Opens a file for reading inside a `with` statement.

    Args:
        path: the file.
        most: the number of bytes that it may have, None for any.

    Raises:
        NewtritonError: it cannot be opened or read, is no plain file, or is larger.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise unreadable(path, "Is a directory" if path.is_dir() else "it is no plain file")
        with open(path, "rb", opener=_at_once) as file:
            size = os.fstat(file.fileno()).st_size
            if most is not None and size > most:
                raise unreadable(path, f"it has {size} bytes, where {most} are the most")
            yield file
    except OSError as error:
        raise unreadable(path, error) from error
    except MemoryError as error:
        raise unreadable(path, "it does not fit into the memory") from error
    except NewtritonError:
        raise
    except ValueError as error:  # a name with a null byte
        raise unreadable(path, str(error)) from error


def read(path: Path, most: int | None = None) -> bytes:
    """Returns the bytes of a file; see `opened`."""
    with opened(path, most) as file:
        return file.read()


def read_json(path: Path, most: int = TEXT) -> Any:
    """Returns what a file of JSON says.

    Raises:
        NewtritonError: it cannot be read, or is no JSON.
    """
    data = read(path, most)
    try:
        return parsed(data)
    except ValueError as error:
        raise NewtritonError(f"{path} is damaged: {error}") from error


def parsed(text: str | bytes) -> Any:
    """Returns what JSON says; Python's NaN and Infinity are numbers.

    Raises:
        ValueError: it is no JSON, nested too deeply, or says something twice.

    Examples:
        >>> from newtriton.runtime.disk import parsed
        >>> parsed('{"loss": NaN}')
        {'loss': nan}
        >>> parsed('{"loss": 1.0, "loss": 2.0}')
        Traceback (most recent call last):
        ValueError: 'loss' is there twice
    """
    try:
        return json.loads(text, object_pairs_hook=_once)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns an object whose names differ."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(n for n, times in Counter(name for name, _ in pairs).items() if times > 1)
        raise ValueError(f"{twice[:80]!r} is there twice")
    return found


def _at_once(path: str, flags: int) -> int:
    """Opens a file without waiting, should a pipe have come into its place."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
