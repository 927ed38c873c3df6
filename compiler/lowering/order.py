"""The order in which kernels run, while it grows: who waits for whom, and how deep each stands.

Kernels are added one by one, and what they wait for is known at once or later. The depth of every
kernel (how many must run before it, one after the other) is kept up to date, so that a search for a
path from one kernel to another visits only kernels whose depth lies between theirs. A network's
layers run in sequence, so these are few.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterator, Sequence

from .kernel import Kernel


class Order:
    """A directed graph of kernels without cycles; the caller asks before an edge would close one.

    Attributes:
        before: for every kernel, in the order in which they were added, those it waits for.
        after: for every kernel, those that wait for it.
        depth: for every kernel, the length of the longest chain of kernels before it.
        visited: how many kernels all searches have visited, which tests count as work.
    """

    def __init__(self) -> None:
        self.before: dict[Kernel, dict[Kernel, None]] = {}
        self.after: dict[Kernel, dict[Kernel, None]] = {}
        self.depth: dict[Kernel, int] = {}
        self.visited = 0

    def __iter__(self) -> Iterator[Kernel]:
        return iter(self.before)

    @property
    def next_number(self) -> int:
        """One more than the number of the youngest kernel; kernels stand in this order."""
        youngest = next(reversed(self.before), None)
        return 0 if youngest is None else youngest.number + 1

    def add(self, kernel: Kernel) -> None:
        """Adds a kernel that waits for nobody yet."""
        self.before[kernel], self.after[kernel], self.depth[kernel] = {}, {}, 0

    def wait(self, kernel: Kernel, producer: Kernel) -> None:
        """Lets a kernel wait for another one; it and all behind it may stand deeper then."""
        self.before[kernel][producer] = None
        self.after[producer][kernel] = None
        raised = deque([(kernel, self.depth[producer] + 1)])
        while raised:
            later, depth = raised.popleft()
            if self.depth[later] < depth:
                self.depth[later] = depth
                self.visited += 1
                raised.extend((k, depth + 1) for k in self.after[later])

    def reaches(self, first: Kernel, last: Kernel) -> bool:
        """Whether `last` waits for `first`, directly or not; a kernel reaches itself.

        The search goes from both ends in turn, and is over when one of them has nowhere to go: a
        kernel that nobody waits for costs one step, however deep the other one stands.
        """
        if first is last:
            return True
        lowest, highest = self.depth[first], self.depth[last]
        behind, ahead = {first}, {last}
        forward, backward = [first], [last]
        while forward and backward and lowest < highest:
            self.visited += 2
            for k in self.after[forward.pop()]:
                if k in ahead:
                    return True
                if self.depth[k] < highest and k not in behind:
                    behind.add(k)
                    forward.append(k)
            for k in self.before[backward.pop()]:
                if k in behind:
                    return True
                if self.depth[k] > lowest and k not in ahead:
                    ahead.add(k)
                    backward.append(k)
        return False

    def merge(self, kernels: Sequence[Kernel]) -> None:
        """Replaces kernels that do not wait for each other by the last of them."""
        last = kernels[-1]
        for kernel in kernels[:-1]:
            before, after = self.before.pop(kernel), self.after.pop(kernel)
            del self.depth[kernel]
            for k in before:
                del self.after[k][kernel]
                self.wait(last, k)
            for k in after:
                del self.before[k][kernel]
                self.wait(k, last)

    def in_sequence(self) -> list[Kernel]:
        """Returns the kernels in execution order; of those that are ready the oldest is first."""
        missing = {kernel: len(before) for kernel, before in self.before.items()}
        ready = [(k.number, k) for k, count in missing.items() if not count]
        heapq.heapify(ready)
        found: list[Kernel] = []
        while ready:
            _, kernel = heapq.heappop(ready)
            found.append(kernel)
            for later in self.after[kernel]:
                missing[later] -= 1
                if not missing[later]:
                    heapq.heappush(ready, (later.number, later))
        return found

    def launches(self) -> list[list[Kernel]]:
        """Returns the kernels by launch, in execution order.

        Kernels without contractions that stand equally deep share a launch, and so do all those
        that nobody waits for; a contraction has a launch of its own.
        """
        together: dict[tuple[float, int], list[Kernel]] = {}
        for kernel in self.in_sequence():
            depth = self.depth[kernel]
            if kernel.anchors:
                together[depth, kernel.number + 1] = [kernel]
            else:
                last = depth > 0 and not self.after[kernel]
                together.setdefault((math.inf if last else depth, 0), []).append(kernel)
        return [together[key] for key in sorted(together)]
