"""Triton's cache of compiled kernels, from which nothing is taken whose checksum does not hold.

Triton runs what it finds. Here every file has its checksum beside it, under the same key and name;
a kernel of which a file is missing or damaged is compiled again. Where Triton's folder is not safe
or cannot be written, kernels lie in a temporary one, as long as the process lives.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

from triton.knobs import cache as settings
from triton.knobs import compilation
from triton.runtime.cache import CacheManager

from ...compiler.graph.errors import NewtritonError
from ...compiler.graph.locks import PROCESS
from . import entries
from .folders import private, reason, warn

WHAT = "compiled kernels", "TRITON_CACHE_DIR"
SEAL = ".sha256"  # what ends the name of the file with a checksum
GROUP = "__grp__"  # what begins that of the file with the names of a kernel's, as Triton has it


@contextmanager
def verified() -> Iterator[None]:
    """Has Triton take compiled kernels from here inside a `with` statement.

    Whoever has told Triton to keep, dump or override kernels in a way of their own has that.
    """
    if settings.manager_class or compilation.override or compilation.dump_ir:
        yield
        return
    with PROCESS:
        settings.manager_class = VerifiedKernels
        try:
            yield
        finally:
            settings.manager_class = None


class VerifiedKernels(CacheManager):
    """The files of one kernel; see `triton.runtime.cache.FileCacheManager`."""

    def __init__(self, key: str, override: bool = False, dump: bool = False) -> None:
        self.key = key
        root = private(Path(settings.dir), *WHAT)
        try:
            self.folder = _made((root or temporary()) / key)
        except OSError as error:
            self._move(error)

    def _move(self, error: OSError) -> None:
        """Goes on in the temporary folder."""
        warn(Path(settings.dir), *WHAT, reason(error))
        self.folder = _made(temporary() / self.key)

    def _checksum(self, filename: str, data: bytes) -> bytes:
        return entries.checksum(f"{self.key}/{filename}", data).encode()

    def get_file(self, filename: str) -> str | None:
        """Returns the path of a file; None where there is none, or its checksum does not hold."""
        data = entries.read(self.folder / filename)
        sealed = entries.read(self.folder / f"{filename}{SEAL}")
        if data is None or sealed != self._checksum(filename, data):
            return None
        return str(self.folder / filename)

    def get_group(self, filename: str) -> dict[str, str] | None:
        """Returns the paths of all files of a kernel; None unless they are all there."""
        path = self.get_file(GROUP + filename)
        if path is None:
            return None
        names = json.loads(Path(path).read_bytes())["child_paths"]
        found = {name: self.get_file(name) for name in names}
        there = {name: path for name, path in found.items() if path is not None}
        return there if len(there) == len(found) else None

    def put(self, data: Any, filename: str, binary: bool = True) -> str:
        """Writes a file with its checksum, and returns its path.

        Raises:
            NewtritonError: it can be written nowhere.
        """
        data = data if isinstance(data, bytes) else str(data).encode()
        try:
            return self._put(data, filename)
        except OSError as error:
            self._move(error)
        try:
            return self._put(data, filename)
        except OSError as error:
            raise _nowhere(error) from error

    def _put(self, data: bytes, filename: str) -> str:
        entries.replace(self.folder / filename, data)
        entries.replace(self.folder / f"{filename}{SEAL}", self._checksum(filename, data))
        return str(self.folder / filename)

    def put_group(self, filename: str, group: Mapping[str, str]) -> None:
        """Writes which files are a kernel's, when they all have been written."""
        self.put(json.dumps({"child_paths": dict(group)}), GROUP + filename)


def _made(folder: Path) -> Path:
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _nowhere(error: OSError) -> NewtritonError:
    return NewtritonError(
        f"compiled kernels can be put nowhere: {reason(error)}; set TRITON_CACHE_DIR or TMPDIR to "
        "a folder that you can write"
    )


@cache
def temporary() -> Path:
    """Returns a folder that lives as long as the process.

    Raises:
        NewtritonError: it cannot be made.
    """
    try:
        folder = tempfile.mkdtemp(prefix="newtriton-")
    except OSError as error:
        raise _nowhere(error) from error
    Finalize(None, shutil.rmtree, (folder, True), exitpriority=0)  # in this process, not in forks
    return Path(folder)
