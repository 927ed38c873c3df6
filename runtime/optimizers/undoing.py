"""Work that is done wholly or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..parts.state import Undo


@contextmanager
def undone(undo: Undo) -> Iterator[None]:
    """Calls `undo` where a `with` statement ends in an error or an interrupt, which then goes on.

    Examples:
        >>> from newtriton.runtime.optimizers.undoing import undone
        >>> moved = [1.0]
        >>> try:
        ...     with undone(moved.clear):
        ...         raise ValueError
        ... except ValueError:
        ...     print(moved)
        []
    """
    try:
        yield
    except BaseException:
        undo()
        raise
