"""What is communicated, counted: calls and bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

# What each of K ranks sends of a byte, in the mean over them, where no byte goes twice to a rank
# (Patarasuk & Yuan 2009): of a tensor that all sum, that one sums or gives, that each gives.
SHARES: Mapping[str, Callable[[int], float]] = {
    "all_reduce": lambda ranks: 2.0 * (ranks - 1) / ranks,
    "reduce": lambda ranks: (ranks - 1) / ranks,
    "broadcast": lambda ranks: (ranks - 1) / ranks,
    "all_gather": lambda ranks: ranks - 1.0,
}


@dataclass
class Traffic:
    """Calls of the communication library, and the bytes that they carried.

    Attributes:
        calls: how often each operation was called, by its name.
        payload: the bytes of a rank's tensors in those calls, by the same names.
        sent: the bytes that a rank sends at least, in the mean over the ranks of each call.

    Examples:
        >>> from newtriton.runtime.parallel.counter import Traffic
        >>> traffic = Traffic()
        >>> traffic.note("all_reduce", 800, ranks=4)
        >>> traffic.calls["all_reduce"], traffic.sent
        (1, 1200.0)
    """

    calls: Counter[str] = field(default_factory=Counter)
    payload: Counter[str] = field(default_factory=Counter)
    sent: float = 0.0

    def note(self, name: str, size: int, ranks: int) -> None:
        """Counts a call, its bytes, and how many ranks make it."""
        self.calls[name] += 1
        self.payload[name] += size
        self.sent += SHARES[name](ranks) * size

    def reset(self) -> None:
        """Begins to count again."""
        self.calls.clear()
        self.payload.clear()
        self.sent = 0.0
