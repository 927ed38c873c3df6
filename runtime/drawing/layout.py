"""Where everything of a picture stands: launches from above, lines of values on their left.

Time flows downwards. A value that one kernel writes and later ones read is a line beside the
kernels, from where it is written to where it is read for the last time; of lines that would meet,
the shorter one is closer to the kernels. What comes from outside has a chip wherever it is read,
and no line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from .cards import CHIP, SMALL, Card, Exit, card, chip_text
from .picture import Kind, Picture

LANE, GAP = 9.0, 3.0  # between lines beside each other, and one below the other
LANES = 460.0  # the width of all lines, which are closer where there are many
NUMBERS = 46.0  # the width of the launches' numbers
BETWEEN, APART = 8.0, 16.0  # kernels of a launch, and launches
MARGIN = 14.0
NARROWEST = 876.0  # as wide as memory is drawn


@dataclass(frozen=True)
class Lane:
    """The line of a value.

    Attributes:
        value: its place in the picture.
        x: where the line is.
        exit: the way of the value out of the kernel that writes it.
        entries: where it is read: places at the left edge of kernels' chips.
    """

    value: int
    x: float
    exit: Exit
    entries: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Chip:
    """A value that comes from outside, in the list of them.

    Attributes:
        value: its place in the picture.
        text: what stands on it.
        x: its left edge.
        y: its upper edge.
        width: its width.
    """

    value: int
    text: str
    x: float
    y: float
    width: float


@dataclass(frozen=True)
class Layout:
    """The places of all that is drawn.

    Attributes:
        given: the chips of what comes from outside.
        cards: the kernels, each with its corner.
        launches: by launch, its upper edge and its height.
        lanes: the lines of values.
        width: of the whole.
        height: of the whole.
    """

    given: Sequence[Chip]
    cards: Sequence[tuple[Card, float, float]]
    launches: Sequence[tuple[float, float]]
    lanes: Sequence[Lane]
    width: float
    height: float


def layout(picture: Picture) -> Layout:
    """Returns the places of all that is drawn of a program."""
    cards = [card(kernel, picture) for kernel in picture.kernels]
    given, y = _given(picture, max([NARROWEST, *(c.width for c in cards)]))
    tops, launches = list[float](), list[tuple[float, float]]()
    for i in range(len(picture.launches)):
        top = y = y + APART
        for each in (c for c in cards if c.kernel.launch == i):
            tops.append(y)
            y += each.height + BETWEEN
        y -= BETWEEN
        launches.append((top, y - top))
    at = _columns(cards, tops)
    count = max(at.values(), default=0) + 1
    apart = min(LANE, LANES / count)
    left = NUMBERS + apart * count + MARGIN
    placed = [(c, left, top) for c, top in zip(cards, tops, strict=True)]
    lanes = [_lane(v, left - MARGIN - apart * column, placed) for v, column in at.items()]
    width = max([NARROWEST, *(left + c.width for c in cards)]) + MARGIN
    return Layout(given, placed, launches, lanes, width, y + MARGIN)


def _given(picture: Picture, width: float) -> tuple[list[Chip], float]:
    """Returns the chips of what comes from outside, in lines, and where these end."""
    chips, x, y, before = list[Chip](), MARGIN, 26.0, None
    kinds = list(Kind)
    order = sorted(picture.given, key=lambda v: kinds.index(picture.values[v].kind))
    for v in order:
        value = picture.values[v]
        text = chip_text(value)
        size = SMALL * len(text) + 10
        if x > MARGIN and (x + size > width or value.kind is not before):
            x, y = MARGIN, y + CHIP + 5
        chips.append(Chip(v, text, x, y, size))
        x, before = x + size + 6, value.kind
    return chips, y + CHIP + 24


def _spans(cards: Sequence[Card], tops: Sequence[float]) -> Iterator[tuple[int, float, float]]:
    """Yields the values that a kernel writes and others read, from where and to where."""
    written = {
        v: top + c.exits[v].below for c, top in zip(cards, tops, strict=True) for v in c.exits
    }
    last = dict[int, float]()
    for c, top in zip(cards, tops, strict=True):
        last |= {v: top + y for v, y in c.entries.items()}
    for v, start in written.items():
        if v in last:
            yield v, start, last[v]


def _columns(cards: Sequence[Card], tops: Sequence[float]) -> dict[int, int]:
    """Returns the column of every value's line, so that no two lines in one meet."""
    taken: list[list[tuple[float, float]]] = []
    found = dict[int, int]()

    def is_free(spans: Sequence[tuple[float, float]], start: float, stop: float) -> bool:
        return all(stop + GAP < a or b + GAP < start for a, b in spans)

    for v, start, stop in sorted(_spans(cards, tops), key=lambda s: (s[2] - s[1], s[1], s[0])):
        free = (i for i, spans in enumerate(taken) if is_free(spans, start, stop))
        column = next(free, len(taken))
        if column == len(taken):
            taken.append([])
        taken[column].append((start, stop))
        found[v] = column
    return found


def _lane(value: int, x: float, placed: Sequence[tuple[Card, float, float]]) -> Lane:
    """Returns the line of a value."""
    (way,) = (
        Exit(left + out.x, top + out.y, left + out.right, top + out.below)
        for c, left, top in placed
        if (out := c.exits.get(value)) is not None
    )
    entries = [
        (left + _chip(c, value), top + c.entries[value])
        for c, left, top in placed
        if value in c.entries
    ]
    return Lane(value, x, way, entries)


def _chip(c: Card, value: int) -> float:
    """Returns the left edge of the chip of a value that a kernel reads."""
    return next(b.x for b in c.boxes if b.kind == "read" and c.kernel.reads[b.index] == value)


def by_launch(picture: Picture) -> Mapping[int, list[int]]:
    """Returns the places of the kernels of every launch."""
    found: dict[int, list[int]] = {}
    for k, kernel in enumerate(picture.kernels):
        found.setdefault(kernel.launch, []).append(k)
    return found
