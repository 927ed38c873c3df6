"""What is drawn of a program: kernels, the nodes in them, the values in memory. Data alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property


class Kind(str, Enum):
    """What a value in memory is to the program."""

    INPUT = "input"
    PARAMETER = "parameter"
    TAPE = "tape"  # kept by the linearization, and read here
    KEPT = "kept"  # written to the tape
    RESULT = "result"
    BETWEEN = "between"  # what kernels tell each other
    LIBRARY = "library"  # what a library puts where it likes, for the next kernel


GIVEN = frozenset({Kind.INPUT, Kind.PARAMETER, Kind.TAPE})


@dataclass(frozen=True)
class Value:
    """A value that lies in memory.

    Attributes:
        name: its number in the printed graph, "%17", or "parts of %17".
        label: what a person calls it: the name of a parameter or result, or its op.
        type: its shape and kind, as the graph prints them.
        size: its bytes.
        kind: what it is to the program.
    """

    name: str
    label: str
    type: str
    size: int
    kind: Kind


@dataclass(frozen=True)
class Pill:
    """A node as it is drawn.

    Attributes:
        number: its number in the printed graph.
        label: its op, or the expression of a map.
        line: its line in the printed graph.
        style: "op"; "view" where it takes no memory and no work; "parts" where parts of a value
            that another kernel computes are added up.
    """

    number: int
    label: str
    line: str
    style: str = "op"


@dataclass(frozen=True)
class Kernel:
    """Nodes that are computed together.

    Ends of edges are counted: first the values that are read, then the nodes, then the values that
    are written.

    Attributes:
        launch: the launch that it belongs to.
        kind: how it is computed: "contraction", "pointwise", "vendor", …
        space: what its tiles cover.
        place: where in the network its nodes were made.
        pills: the nodes, operands first.
        reads: the values that it reads, by their places in the picture.
        writes: the values that it writes.
        edges: what goes into what.
        flops: its floating-point operations.
        traffic: the bytes that it reads and writes, each element once.
    """

    launch: int
    kind: str
    space: str
    place: str
    pills: Sequence[Pill]
    reads: Sequence[int]
    writes: Sequence[int]
    edges: Sequence[tuple[int, int]]
    flops: int
    traffic: int


@dataclass(frozen=True)
class Launch:
    """What is launched at once.

    Attributes:
        source: the text of the generated functions, "" where there are none.
        settings: by the name of a Triton kernel, how it is tiled and launched.
        skeletons: the hand-written kernels that take the generated functions, by name.
        note: what else is to be said.
    """

    source: str = ""
    settings: Sequence[tuple[str, str]] = ()
    skeletons: Sequence[str] = ()
    note: str = ""


@dataclass(frozen=True)
class Room:
    """A value's place in memory over time.

    Attributes:
        value: its place in the picture.
        start: when it is written, counted in launches; half a launch later over another value.
        stop: when it is no longer needed.
        offset: its first byte.
        size: its bytes.
    """

    value: int
    start: float
    stop: float
    offset: int
    size: int


@dataclass(frozen=True)
class Band:
    """Memory of one sort.

    Attributes:
        name: what it is called.
        size: its bytes.
        rooms: the values in it.
    """

    name: str
    size: int
    rooms: Sequence[Room]


@dataclass(frozen=True)
class Picture:
    """A program as it is computed.

    Attributes:
        name: its name.
        how: what computes it, in words.
        facts: what it takes in all, each number with its name.
        values: what lies in memory.
        given: those that come from outside, by their places.
        kernels: the kernels, in order.
        launches: the launches.
        bands: memory over time.
        skeletons: the source of hand-written kernels, by name.
        outside: the nodes that come from outside, as the graph prints them, by the value's place.
    """

    name: str
    how: str
    facts: Sequence[tuple[str, str]]
    values: Sequence[Value]
    given: Sequence[int]
    kernels: Sequence[Kernel]
    launches: Sequence[Launch]
    bands: Sequence[Band]
    skeletons: dict[str, str] = field(default_factory=dict)
    outside: dict[int, str] = field(default_factory=dict)

    @cached_property
    def writers(self) -> dict[int, int]:
        """The launch that writes each value which does not come from outside."""
        return {v: kernel.launch for kernel in self.kernels for v in kernel.writes}

    def said(self, value: int) -> str:
        """Returns what a value is, in words."""
        found = self.values[value]
        named = " ".join(dict.fromkeys((found.name, found.label, found.type)))
        by = f", written by launch {self.writers[value]}" if value in self.writers else ""
        return f"{named}, {amount(found.size, 'B')}{by}"


def amount(number: float, unit: str) -> str:
    """Returns a number in three digits with a prefix of its unit.

    Examples:
        >>> amount(131072, "B"), amount(12, "B"), amount(7.4e9, "FLOP")
        ('131 kB', '12 B', '7.4 GFLOP')
    """
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * factor:
            return f"{number / factor:.3g} {prefix}{unit}"
    return f"{number:.3g} {unit}"


def stacked(name: str, values: Sequence[tuple[int, float, float, int]], step: int = 1) -> Band:
    """Returns values on top of each other.

    Args:
        name: what the band is called.
        values: places in the picture, each with when it begins, when it ends, and its bytes.
        step: the bytes of whose multiples a value's first byte is one.
    """
    rooms, total = list[Room](), 0
    for value, start, stop, size in values:
        rooms.append(Room(value, start, stop, total, size))
        total += -(-size // step) * step
    return Band(name, total, rooms)
