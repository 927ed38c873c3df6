"""Memory: from the lifetimes of blocks to their offsets in one arena.

Largest first, each block at the lowest offset that is free for its whole lifetime (Pisarchyk & Lee
2020, "greedy by size"): on networks' programs this is within a few percent of the lower bound.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Generic, TypeVar

import numpy as np

ALIGNMENT = 256  # bytes
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Lifetime:
    """A block of memory and the steps at which it is used.

    Attributes:
        size: its bytes.
        first: the step at which it is written.
        last: the step at which it is read for the last time.
    """

    size: int
    first: int
    last: int

    def meets(self, other: Lifetime) -> bool:
        """Whether both are alive at some step."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class Arena(Generic[Key]):
    """Where blocks lie in one piece of memory.

    Attributes:
        offsets: the first byte of every block.
        size: the bytes of the whole.
    """

    offsets: Mapping[Key, int]
    size: int


def arena(lifetimes: Mapping[Key, Lifetime]) -> Arena[Key]:
    """Returns offsets such that blocks alive at one time never overlap.

    Examples:
        >>> arena({"a": Lifetime(256, 0, 1), "b": Lifetime(512, 1, 2), "c": Lifetime(256, 2, 3)})
        Arena(offsets={'b': 0, 'a': 512, 'c': 512}, size=768)
    """
    # Of the blocks placed so far, in order of their starts: start, stop, first step, last step.
    placed = np.zeros((4, len(lifetimes)), dtype=np.int64)
    offsets: dict[Key, int] = {}
    for key, life in sorted(lifetimes.items(), key=lambda item: -item[1].size):
        count = len(offsets)
        starts, stops, firsts, lasts = placed[:, :count]
        meets = (firsts <= life.last) & (lasts >= life.first)
        below = np.maximum.accumulate(np.concatenate(([0], stops[meets])))
        gaps = starts[meets] - below[:-1] >= life.size
        start = below[np.argmax(gaps) if gaps.any() else -1]
        stop = start + -(-life.size // ALIGNMENT) * ALIGNMENT
        at = np.searchsorted(starts, start, side="right")
        placed[:, at + 1 : count + 1] = placed[:, at:count].copy()
        placed[:, at] = start, stop, life.first, life.last
        offsets[key] = int(start)
    return Arena(offsets, int(placed[1].max(initial=0)))


def shared(
    lifetimes: Mapping[Key, Lifetime], over: Mapping[Key, Key]
) -> tuple[dict[Key, Lifetime], dict[Key, Key]]:
    """Returns lifetimes of blocks that take values in turn, and in whose block a value lies.

    Args:
        lifetimes: when each value is in memory, and its size.
        over: for a value that is written over an earlier one, the earlier one.
    """
    blocks, home = dict(lifetimes), dict[Key, Key]()
    for later, earlier in sorted(over.items(), key=lambda pair: lifetimes[pair[0]].first):
        home[later] = first = home.get(earlier, earlier)
        life, end = blocks[first], blocks.pop(later)
        blocks[first] = Lifetime(life.size, life.first, end.last)
    return blocks, home


def peak(lifetimes: Mapping[Key, Lifetime]) -> int:
    """Returns the lower bound of an arena's size: the most bytes alive at one step."""
    change: Counter[int] = Counter()
    for life in lifetimes.values():
        change[life.first] += life.size
        change[life.last + 1] -= life.size
    return max(accumulate(change[step] for step in sorted(change)), default=0)
