"""What is made once for each key and kept, of the keys that were used last."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")

SIZES = 64  # batch sizes for which what runs a graph is kept


class Recent(dict[K, V]):
    """A dictionary of the keys that were used last, in that order.

    Args:
        most: how many.

    Examples:
        >>> from newtriton.runtime.recent import Recent
        >>> squares = Recent[int, int](2)
        >>> [squares.made(n, lambda n=n: n * n) for n in (1, 2, 1, 3)]
        [1, 4, 1, 9]
        >>> [*squares]
        [1, 3]
    """

    def __init__(self, most: int = SIZES) -> None:
        super().__init__()
        self.most, self._lock = most, threading.Lock()

    def made(self, key: K, make: Callable[[], V]) -> V:
        """Returns the value of a key, made now where there is none."""
        with self._lock:
            if key in self:
                self[key] = value = self.pop(key)
                return value
        value = make()
        with self._lock:
            self[key] = value
            while len(self) > self.most:
                del self[next(iter(self))]
        return value
