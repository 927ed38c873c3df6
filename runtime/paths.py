"""What a user may give for a path."""

from __future__ import annotations

import os
from pathlib import Path

from ..compiler.graph.errors import NewtritonError, quoted


def path_of(what: str, value: object, of: str = "folder") -> Path:
    """Returns a path.

    Args:
        what: the name of the argument.
        value: what is given.
        of: what is there, a file or a folder.

    Raises:
        NewtritonError: the value is none, or one that no file can have.
    """
    if isinstance(value, (str, os.PathLike)) and isinstance(text := os.fspath(value), str):
        try:
            if text and b"\0" not in os.fsencode(text):
                return Path(text)
        except UnicodeEncodeError:
            pass
    raise NewtritonError(f"{what} is {quoted(value)}: give the path of a {of}")
