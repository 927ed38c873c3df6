"""What is communicated, counted: calls and bytes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Traffic:
    """Calls of the communication library, and the bytes that they carried.

    Attributes:
        calls: how often each operation was called, by its name.
        payload: the bytes of a rank's tensors in those calls, by the same names.

    Examples:
        >>> from newtriton.runtime.parallel.counter import Traffic
        >>> traffic = Traffic()
        >>> traffic.note("all_reduce", 800)
        >>> traffic.calls["all_reduce"], traffic.sent(4)
        (1, 1200.0)
    """

    calls: Counter[str] = field(default_factory=Counter)
    payload: Counter[str] = field(default_factory=Counter)

    def note(self, name: str, size: int) -> None:
        """Counts a call and its bytes."""
        self.calls[name] += 1
        self.payload[name] += size

    def reset(self) -> None:
        """Begins to count again."""
        self.calls.clear()
        self.payload.clear()

    def sent(self, ranks: int) -> float:
        """Returns the bytes that each rank sends at least.

        A sum over K ranks of b bytes takes 2b(K−1)/K, a gathering of b bytes from each b(K−1)
        (Patarasuk & Yuan 2009).
        """
        share = (ranks - 1) / ranks
        return 2.0 * share * self.payload["all_reduce"] + (ranks - 1) * self.payload["all_gather"]
