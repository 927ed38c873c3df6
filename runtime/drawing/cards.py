"""A kernel as a card: chips of what it reads on the left, its nodes, chips of what it writes.

What is deeper than a line of nodes goes on below: there a chip says which node it goes on from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from .layers import ACROSS, Layered, Point, depths, layered
from .picture import Kernel, Kind, Picture, Pill, Value, amount

LETTER, SMALL = 6.65, 6.05  # widths of a letter, of nodes and of chips
BOLD, LIGHT = 7.7, 6.8  # and at most of titles and of costs, which are not of one width
PILL, CHIP = 20.0, 15.0  # heights
HEAD, PAD = 24.0, 9.0
WIDEST = 520.0  # of the nodes of a line
TRACK = 4.0  # between the lines on which values leave
SHORTEST = 300.0
UNNAMED = frozenset({Kind.BETWEEN, Kind.KEPT, Kind.LIBRARY})  # the node stands in a kernel


@dataclass(frozen=True)
class Box:
    """Something with a text in a card.

    Attributes:
        kind: "read", "node", "write", or "again" for a chip from which a line goes on.
        index: its place among what the kernel reads, computes or writes.
        text: what stands in it.
        x: its left edge.
        y: its upper edge.
        width: its width.
        height: its height.
    """

    kind: str
    index: int
    text: str
    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        """The height of its middle."""
        return self.y + self.height / 2


@dataclass(frozen=True)
class Exit:
    """The way of a value out of a card: right, down, and below everything to the left.

    Attributes:
        x: the right edge of its chip.
        y: the height of its chip's middle.
        right: where it goes down.
        below: the height at which it leaves.
    """

    x: float
    y: float
    right: float
    below: float


@dataclass(frozen=True)
class Card:
    """A kernel with the places of all that is drawn in it, from the card's corner.

    Attributes:
        kernel: the kernel.
        title: what stands above, on the left.
        costs: what stands above, on the right.
        boxes: what is drawn in it.
        routes: the edges, by their points.
        entries: by value that is read, the height of its chip.
        exits: by value that is written, its way out.
        width: the card's width.
        height: its height.
    """

    kernel: Kernel
    title: str
    costs: str
    boxes: Sequence[Box]
    routes: Sequence[Sequence[Point]]
    entries: Mapping[int, float]
    exits: Mapping[int, Exit]
    width: float
    height: float


def chip_text(value: Value) -> str:
    """Returns what stands on the chip of a value."""
    named = "" if value.kind in UNNAMED else shortened(value.label, 24)
    return " ".join(filter(None, [value.name, named, value.type]))


def shortened(text: str, most: int) -> str:
    """Returns a text of at most so many letters, its middle left out where it is longer."""
    if len(text) <= most:
        return text
    return f"{text[: most // 2 - 1]}…{text[len(text) - (most - most // 2) :]}"


def card(kernel: Kernel, picture: Picture) -> Card:
    """Returns a kernel as a card."""
    title = " ".join(filter(None, [kernel.kind, kernel.space]))
    place = f"  {shortened(kernel.place, 40)}" if kernel.place else ""
    title, costs = f"{title}{place}", _costs(kernel)
    boxes, routes, y, width = list[Box](), list[Sequence[Point]](), HEAD + PAD, SHORTEST
    for line in _lines(kernel):
        texts = list(_texts(line, kernel, picture))
        found = _laid_out(line, texts, kernel)
        for (kind, index), text, (x, top) in zip(line.ends, texts, found.places, strict=True):
            size = _size(kind, text)
            boxes.append(Box(kind, index, text, PAD + x, y + top, *size))
        routes += [[(PAD + x, y + top) for x, top in route] for route in found.routes]
        y, width = y + found.height + PAD, max(width, found.width + 2 * PAD)
    leaving = sorted((b for b in boxes if b.kind == "write"), key=lambda b: -b.middle)
    right = max((b.x + b.width for b in boxes), default=0.0) + TRACK
    exits = {
        kernel.writes[b.index]: Exit(b.x + b.width, b.middle, right + TRACK * i, y + TRACK * i)
        for i, b in enumerate(leaving)
    }
    entries = {kernel.reads[b.index]: b.middle for b in boxes if b.kind == "read"}
    height = y + TRACK * max(0, len(leaving) - 1) + PAD / 2
    width = max(width, right + TRACK * len(leaving) + PAD / 2)
    head = BOLD * len(title) + LIGHT * len(costs) + 4 * PAD
    return Card(
        kernel, title, costs, boxes, routes, entries, exits,
        max(width, head), height,
    )  # fmt: skip


def _costs(kernel: Kernel) -> str:
    """Returns what a kernel costs, in words."""
    moved = amount(kernel.traffic, "B")
    return f"{amount(kernel.flops, 'FLOP')} · {moved}" if kernel.flops else moved


End = tuple[str, int]  # what a box stands for: its kind, and its place in the kernel


@dataclass(frozen=True)
class _Line:
    """Some layers of a kernel.

    Attributes:
        ends: what stands in it.
        edges: from one of them to another.
    """

    ends: Sequence[End]
    edges: Sequence[tuple[int, int]]


def _end(kernel: Kernel, number: int) -> End:
    """Returns what an end of an edge is."""
    first, nodes = len(kernel.reads), len(kernel.pills)
    if number < first:
        return "read", number
    return ("node", number - first) if number < first + nodes else ("write", number - first - nodes)


def _cut(kernel: Kernel, depth: Sequence[int]) -> list[int]:
    """Returns the line of every node: a new one begins where layers become too wide."""
    widths = [0.0] * (max(depth, default=0) + 1)
    for pill, d in zip(kernel.pills, depth, strict=True):
        widths[d] = max(widths[d], _size("node", node_text(pill))[0] + ACROSS)
    line, used, of_layer = 0, 0.0, list[int]()
    for width in widths:
        if used and used + width > WIDEST:
            line, used = line + 1, 0.0
        used += width
        of_layer.append(line)
    return [of_layer[d] for d in depth]


def node_text(pill: Pill) -> str:
    """Returns what stands in the picture for a node."""
    return f"{pill.number} {pill.label}"


def _lines(kernel: Kernel) -> Iterator[_Line]:
    """Yields the nodes of a kernel in lines that are not too wide, with their chips.

    What a line needs from one above, a node or a value that is read there, has a chip again.
    """
    edges = [(_end(kernel, a), _end(kernel, b)) for a, b in kernel.edges]
    count, first = len(kernel.pills), len(kernel.reads)
    inner = [(a - first, b - first) for a, b in kernel.edges if first <= a and b < first + count]
    of_node = _cut(kernel, depths(count, inner))
    line: dict[End, int] = {("node", i): at for i, at in enumerate(of_node)}
    for i in range(first):
        used = [line[b] for a, b in edges if a == ("read", i) and b in line]
        line["read", i] = min(used, default=0)
    for i in range(len(kernel.writes)):
        made = [line[a] for a, b in edges if b == ("write", i) and a in line]
        line["write", i] = max(made, default=max(of_node, default=0))
    for at in range(max(line.values(), default=0) + 1):
        ends = [end for end, where in line.items() if where == at]
        place = {end: i for i, end in enumerate(ends)}
        found = list[tuple[int, int]]()
        for a, b in edges:
            if line[b] == at:
                if a not in place:
                    number = a[1] + (first if a[0] == "node" else 0)
                    place[a] = len(ends)
                    ends.append(("again", number))
                found.append((place[a], place[b]))
        yield _Line(ends, found)


def _texts(line: _Line, kernel: Kernel, picture: Picture) -> Iterator[str]:
    """Yields what stands in the boxes of a line."""
    for kind, index in line.ends:
        if kind == "node":
            yield node_text(kernel.pills[index])
        elif kind == "again":
            which, i = _end(kernel, index)
            name = f"%{kernel.pills[i].number}" if which == "node" else ""
            yield f"↪ {name or picture.values[kernel.reads[i]].name}"
        else:
            values = kernel.reads if kind == "read" else kernel.writes
            yield chip_text(picture.values[values[index]])


def _size(kind: str, text: str) -> Point:
    """Returns the width and the height of a box with a text."""
    if kind == "node":
        return LETTER * len(text) + 12, PILL
    return SMALL * len(text) + 10, CHIP


def _laid_out(line: _Line, texts: Sequence[str], kernel: Kernel) -> Layered:
    """Returns the places of a line's boxes: chips in the first and the last layer."""
    kinds, chips = [kind for kind, _ in line.ends], len(line.ends)
    after_chips = [(chips, n) for n, kind in enumerate(kinds) if kind == "node"]
    layer = depths(chips + 1, [*line.edges, *after_chips])[:chips]
    last = max((at for at, kind in zip(layer, kinds, strict=True) if kind == "node"), default=0)
    layer = [last + 1 if k == "write" else at for at, k in zip(layer, kinds, strict=True)]
    sizes = [_size(kind, text) for (kind, _), text in zip(line.ends, texts, strict=True)]
    return layered(sizes, line.edges, layer)
