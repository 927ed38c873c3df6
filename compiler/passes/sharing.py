"""What leaves a stream, shared among passes where one program cannot hold all that it needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from ..graph.ir import Node, Op, topological
from ..streaming.streams import Stream, wide_of
from .sinks import Sink, contraction, matrices
from .space import Side
from .tiles import Limits, Needs, padded, tile_of

MOST = 5  # sinks of which all ways to share them are compared


@dataclass
class Sharing:
    """Shares the sinks of one side of a stream among passes, with as few products as possible.

    Attributes:
        stream: what leaves it.
        side: what programs own.
        precision: the precision of products.
        limits: what the chip holds.
    """

    stream: Stream
    side: Side
    precision: str
    limits: Limits
    _found: dict[tuple[Node, ...], tuple[int, list[list[Sink]]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._wide = frozenset(wide_of(self.stream))

    def shared(self, sinks: Sequence[Sink]) -> list[list[Sink]]:
        """Returns sinks in groups of which each is computed by one pass."""
        return self._best(list(sinks))[1]

    def _best(self, sinks: list[Sink]) -> tuple[int, list[list[Sink]]]:
        """Returns how many products of tiles passes take at least, and the sinks of each."""
        key = tuple(s.node for s in sinks)
        if key not in self._found:
            needs = self._needs(sinks)
            if len(sinks) == 1 or tile_of(self.side, needs, self.limits) is not None:
                self._found[key] = needs.wide + needs.accumulators, [sinks]
            else:
                both = ([self._best(part) for part in parts] for parts in _halves(sinks))
                self._found[key] = min(
                    ((x[0] + y[0], x[1] + y[1]) for x, y in both), key=lambda found: found[0]
                )
        return self._found[key]

    def _needs(self, sinks: Sequence[Sink]) -> Needs:
        """Returns what a loop holds that computes all of these sinks."""
        given = {s.node for s in sinks}
        inside = self._wide | given
        found = [n for n in topological(given, stop=lambda n: n not in inside) if n in inside]
        own, other = set[Node](), set[Node]()
        products = [n for n in found if n.op is Op.MATMUL]
        for node in products:
            if node in self._wide:
                mine, theirs = matrices(node, self.side)
                own.add(mine[0])
                other.add(theirs[0])
            else:
                other.add(contraction(node, self._wide).matrix)
        depth = max((padded(min(x.shape[-2:], key=_size)) for x in own | other), default=0)
        sums = sum(n not in self._wide for n in products)
        width, by_steps = 2 if self.precision == "bf16" else 4, self.precision == "ieee"
        return Needs(len(own), len(other), depth, width, len(products) - sums, sums, by_steps)


def _size(size: object) -> int:
    return size if isinstance(size, int) else 1 << 30


def _halves(sinks: list[Sink]) -> Iterator[tuple[list[Sink], list[Sink]]]:
    """Yields sinks in two parts, in all ways, or in order where they are many."""
    if len(sinks) > MOST:
        yield sinks[: len(sinks) // 2], sinks[len(sinks) // 2 :]
        return
    for size in range(1, len(sinks) // 2 + 1):
        for part in combinations(sinks, size):
            yield list(part), [s for s in sinks if s not in part]
