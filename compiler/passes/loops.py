"""The loops of a pass by rows: each goes through all columns, and gives what the next ones need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..graph.ir import Node, Op
from ..streaming.hidden import Mask, mask_of, vanishes
from ..streaming.streams import Stream, wide_of
from .running import FACTOR, Softmax, dependences, softmax_of
from .sinks import Sink


@dataclass(frozen=True)
class Loop:
    """What is computed in a loop.

    Attributes:
        sinks: what leaves the stream.
        softmax: the softmax whose maximum is a running one in it, if there is one.
        scaled: the sums that are relative to that maximum.
        mask: what hides tiles that it leaves out, if there is such a mask.
    """

    sinks: Sequence[Sink]
    softmax: Softmax | None = None
    scaled: frozenset[Node] = frozenset()
    mask: Mask | None = None


def masked(stream: Stream, loop: Loop) -> Loop:
    """Returns a loop that leaves out tiles in which nothing is seen, if they add nothing."""
    mask = mask_of(stream)
    sinks, wide = [sink.node for sink in loop.sinks], frozenset(wide_of(stream))
    left_out = mask is not None and vanishes(stream, mask, sinks, wide)
    return replace(loop, mask=mask) if left_out else loop


def loops_of(stream: Stream, sinks: Sequence[Sink]) -> list[Loop]:
    """Returns the loops of a pass: every sink behind all that it needs."""
    wide = frozenset(wide_of(stream))
    turns = {sink.node: 1 + (sink.node.op is Op.SAMPLE) for sink in sinks if sink.node not in wide}
    softmax = next((s for s in map(softmax_of, turns) if s and s.maximum in turns), None)
    scaled: frozenset[Node] = frozenset()
    level, start = _levels(stream, turns, {}), -1
    if softmax is not None:
        start = level[softmax.maximum]
        early = _levels(stream, turns, {softmax.maximum: start, softmax.normaliser: start})
        how = dependences(softmax, stream.nodes)
        sums = [node for node in turns if node.op in (Op.REDUCE_SUM, Op.MATMUL)]
        summed = {node: next(x for x in node.inputs if x in wide) for node in sums}
        scaled = frozenset(
            node for node, x in summed.items() if how[x] == FACTOR and early[node] == start
        )
        fixed = dict.fromkeys((softmax.normaliser, *scaled), start)
        level = _levels(stream, turns, {n: start + 1 for n in fixed}) | fixed
    loops: dict[int, list[Sink]] = {}
    for sink in sinks:
        for turn in range(turns.get(sink.node, 1)):
            loops.setdefault(level[sink.node] + turn, []).append(sink)
    return [
        Loop(_softmax_first(loops[n], softmax), softmax, scaled)
        if softmax is not None and n == start
        else Loop(loops[n])
        for n in sorted(loops)
    ]


def _levels(
    stream: Stream, turns: Mapping[Node, int], known: Mapping[Node, int]
) -> dict[Node, int]:
    """Returns the first loop in which values can be computed.

    Args:
        stream: the values.
        turns: by sum of rows, the loops that it takes.
        known: values that are known from a loop on, whatever they need.
    """
    level: dict[Node, int] = {}
    for node in stream.nodes:
        read = (known[x] if x in known else level.get(x, 0) + turns.get(x, 0) for x in node.inputs)
        level[node] = max(read, default=0)
    return level


def _softmax_first(sinks: Sequence[Sink], softmax: Softmax) -> list[Sink]:
    first = (softmax.maximum, softmax.normaliser)
    return sorted(sinks, key=lambda s: first.index(s.node) if s.node in first else len(first))
