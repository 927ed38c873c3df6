"""Generated code on disk: readable files that are named after their content.

Several processes may write at once. A file appears as a whole, by a rename, and is read only if its
checksum holds. Code is loaded only from a folder that nobody else can write to.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import stat
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import ModuleType

from ... import kernels
from ...compiler.graph.errors import NewtritonError

FOLDER = "NEWTRITON_CACHE"
_CHECKSUM = "# sha256 "


def folder() -> Path:
    """Returns the folder of the files, and makes it where it is missing.

    It is $NEWTRITON_CACHE, or `newtriton` in the user's cache.

    Raises:
        NewtritonError: it cannot be made, or others could write there.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(os.environ.get(FOLDER) or Path(cache) / "newtriton")
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.stat()
    except OSError as error:
        raise NewtritonError(
            f"cannot keep generated code in {path}: {error.strerror}; set {FOLDER} to a folder "
            "that you can write"
        ) from error
    if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise NewtritonError(
            f"others can write to {path}, so code from there would not be safe to run: "
            f"chmod 700 it, or set {FOLDER} to a folder of your own"
        )
    return path


def digest(text: str) -> str:
    """Returns the SHA-256 of a text, in hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def stored(name: str) -> str | None:
    """Returns the text kept under a name; None where there is none, or it is damaged."""
    try:
        text = (folder() / name).read_text()
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    body, found, checksum = text.rpartition(_CHECKSUM)
    return body if found and checksum.strip() == digest(body) else None


def store(name: str, text: str) -> Path:
    """Keeps a text under a name and returns its path; the last of several writers wins."""
    path = folder() / name
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{text}{_CHECKSUM}{digest(text)}\n")
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return path


@cache
def kernels_digest() -> str:
    """Returns the SHA-256 of newtriton.kernels, whose functions generated code calls.

    Triton takes the name of a function that is an argument into its keys, not what that calls. With
    this digest in a generated module's header, its name says which kernels it was made for.
    """
    files = sorted(Path(str(kernels.__path__[0])).glob("*.py"))
    return digest("".join(f"{file.name}\n{file.read_text()}" for file in files))


def module(source: str, key: Mapping[str, object]) -> ModuleType:
    """Returns the module of a source text, loaded from a real file, as Triton needs it.

    Args:
        source: the Python code, which ends in a newline.
        key: what else the code was made for, by name; it stands in the header of the file.
    """
    header = "".join(f"# {name}: {value}\n" for name, value in sorted(key.items()))
    text = header + source
    stem = f"nt_{digest(text)[:24]}"
    name = f"{stem}.py"
    path = folder() / name
    if stored(name) != text:
        store(name, text)
    if stem not in sys.modules:
        spec = importlib.util.spec_from_file_location(stem, path)
        assert spec is not None and spec.loader is not None
        loaded = importlib.util.module_from_spec(spec)
        sys.modules[stem] = loaded
        try:
            spec.loader.exec_module(loaded)
        except BaseException:
            del sys.modules[stem]
            raise
    return sys.modules[stem]
