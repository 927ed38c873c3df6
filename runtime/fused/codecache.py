"""Generated code, in modules that are named after their content, and short texts on disk.

What runs is the text that was generated in this process, never a file. The files are for people
and their tools, which show the code of a kernel; whatever befalls them changes no number.
"""

from __future__ import annotations

import hashlib
import importlib.util
import linecache
import os
import sys
from collections.abc import Mapping
from functools import cache
from importlib.abc import ExecutionLoader
from pathlib import Path
from types import ModuleType

from ... import kernels
from ...compiler.graph.locks import PROCESS
from ..caching import entries
from ..caching.folders import private, reason, warn

FOLDER = "NEWTRITON_CACHE"
WHAT = "generated code", FOLDER
_CHECKSUM = "# sha256 "


def place() -> Path:
    """Returns where the folder of the files would be: $NEWTRITON_CACHE, or in the user's cache."""
    if given := os.environ.get(FOLDER):
        return Path(given)
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(cache) / "newtriton"


def folder() -> Path | None:
    """Returns the folder of the files; None, after one warning, where it would not be safe."""
    return private(place(), *WHAT)


def digest(text: str) -> str:
    """Returns the SHA-256 of a text, in hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def stored(name: str) -> str | None:
    """Returns the text kept under a name; None where there is none, or it is damaged."""
    path = folder()
    data = None if path is None else entries.read(path / name)
    body, found, checksum = (data or b"").rpartition(_CHECKSUM.encode())
    if not found or checksum.strip() != entries.checksum(name, body).encode():
        return None
    return body.decode()


def store(name: str, text: str) -> None:
    """Keeps a text under a name; the last of several writers wins.

    Where the disk is full, or nothing can be written for another reason, one warning says so.
    """
    path, body = folder(), text.encode()
    if path is None:
        return
    checksum = f"{_CHECKSUM}{entries.checksum(name, body)}\n"
    try:
        entries.replace(path / name, body + checksum.encode())
    except OSError as error:
        warn(path, *WHAT, reason(error))


@cache
def kernels_digest() -> str:
    """Returns the SHA-256 of newtriton.kernels, whose functions generated code calls.

    Triton takes the name of a function that is an argument into its keys, not what that calls. With
    this digest in a generated module's header, its name says which kernels it was made for.
    """
    files = sorted(Path(str(kernels.__path__[0])).glob("*.py"))
    return digest("".join(f"{file.name}\n{file.read_text()}" for file in files))


class _Text(ExecutionLoader):
    """Loads a module from its text.

    Args:
        text: the text.
        path: where people find it.
    """

    def __init__(self, text: str, path: Path) -> None:
        self.text, self.path = text, path

    def get_source(self, fullname: str) -> str:
        """Returns the text."""
        return self.text

    def get_filename(self, fullname: str) -> str:
        """Returns the path."""
        return str(self.path)


def module(source: str, key: Mapping[str, object]) -> ModuleType:
    """Returns the module of a source text.

    Args:
        source: the Python code, which ends in a newline.
        key: what else the code was made for, by name; it stands in the header of the file.
    """
    header = "".join(f"# {name}: {value}\n" for name, value in sorted(key.items()))
    text = header + source
    stem = f"nt_{digest(text)[:24]}"
    name = f"{stem}.py"
    if stored(name) != text:
        store(name, text)
    with PROCESS:
        return sys.modules.get(stem) or _loaded(stem, text, place().absolute() / name)


def _loaded(stem: str, text: str, path: Path) -> ModuleType:
    """Returns a new module; tools look for its text under a path."""
    # Triton asks `inspect` for the code of functions, and that asks here: no file is read.
    linecache.cache[str(path)] = len(text), None, text.splitlines(keepends=True), str(path)
    spec = importlib.util.spec_from_file_location(stem, path, loader=_Text(text, path))
    assert spec is not None and spec.loader is not None
    loaded = sys.modules[stem] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(loaded)
    except BaseException:
        del sys.modules[stem]
        raise
    return loaded
