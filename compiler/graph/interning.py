"""Interning: equal values are one object, whichever threads make them."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar
from weakref import WeakValueDictionary

from .locks import Lock

T = TypeVar("T")
_lock = Lock()


def interned(table: WeakValueDictionary[tuple, T], key: Hashable, make: Callable[[], T]) -> T:
    """Returns the value of a key, which is made where the table has none.

    Args:
        table: the values that are in use.
        key: all that makes two values equal.
        make: makes the value, and asks for no other.
    """
    with _lock:
        found = table.get(key)  # type: ignore[arg-type]
        if found is None:
            found = table[key] = make()  # type: ignore[index]
        return found
