"""The memory plan: lifetimes to offsets in one arena.

Largest first, each block at the lowest offset that is free for its whole lifetime (Pisarchyk & Lee
2020, "greedy by size"): on networks' programs this is within a few percent of the lower bound.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

ALIGNMENT = 256  # bytes
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Lifetime:
    """A block of `size` bytes, written at step `first` and read for the last time at `last`."""

    size: int
    first: int
    last: int

    def meets(self, other: Lifetime) -> bool:
        """Whether both are alive at some step."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class Arena(Generic[Key]):
    """Offsets of blocks, and the size of the whole, in bytes."""

    offsets: Mapping[Key, int]
    size: int


def arena(lifetimes: Mapping[Key, Lifetime]) -> Arena[Key]:
    """Offsets such that blocks alive at one time never overlap."""
    placed: list[tuple[int, int, Lifetime]] = []  # (start, stop, lifetime)
    offsets: dict[Key, int] = {}
    for key, life in sorted(lifetimes.items(), key=lambda item: -item[1].size):
        start = 0
        for low, high, other in sorted(placed, key=lambda block: block[0]):
            if life.meets(other):
                if low >= start + life.size:
                    break
                start = max(start, high)
        stop = start + -(-life.size // ALIGNMENT) * ALIGNMENT
        placed.append((start, stop, life))
        offsets[key] = start
    return Arena(offsets, max((stop for _, stop, _ in placed), default=0))


def shared(
    lifetimes: Mapping[Key, Lifetime], over: Mapping[Key, Key]
) -> tuple[dict[Key, Lifetime], dict[Key, Key]]:
    """Lifetimes of blocks that take several values in turn, and whose block a value lies in.

    Args:
        lifetimes: of the values.
        over: the value that a later one is written over.
    """
    blocks, home = dict(lifetimes), dict[Key, Key]()
    for later, earlier in sorted(over.items(), key=lambda pair: lifetimes[pair[0]].first):
        home[later] = first = home.get(earlier, earlier)
        life, end = blocks[first], blocks.pop(later)
        blocks[first] = Lifetime(life.size, life.first, end.last)
    return blocks, home


def peak(lifetimes: Mapping[Key, Lifetime]) -> int:
    """The lower bound: the most bytes alive at one step."""
    steps = {life.first for life in lifetimes.values()}
    alive = (
        sum(life.size for life in lifetimes.values() if life.first <= step <= life.last)
        for step in steps
    )
    return max(alive, default=0)
