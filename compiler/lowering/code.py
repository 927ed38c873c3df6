"""Generated code as data: the slots of a kernel, the memory they take and how they access it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from ..graph.ir import Node
from .tile import Index

Count = TypeVar("Count", int, Index)


@dataclass(frozen=True)
class Tile:
    """What a slot sees at once.

    Attributes:
        rows: the tile's rows.
        columns: the tile's columns.
        strips: how many strips of so many columns a row of the kernel's space has.
        run: the rows after which a new tile begins in any case, 0 where there is no such number.
    """

    rows: int
    columns: int
    strips: int
    run: int = 0

    def down(self, rows: Count) -> Count:
        """Returns the number of tiles, one below the other, of so many rows: a number or a term."""
        if self.run:
            return rows // self.run * -(-self.run // self.rows)
        return (rows + (self.rows - 1)) // self.rows


@dataclass(frozen=True)
class Part:
    """Memory between two kernels.

    Attributes:
        of: a sum that tiles give parts of, or a contraction whose accumulator is written apart.
        integers: which one it is of those that hold integers; None for numbers.
    """

    of: Node
    integers: int | None = None


Buffer = Node | Part


class Access(NamedTuple):
    """A load or a store of a value.

    Attributes:
        node: the value.
        stored: whether it is written.
        home: whether each element is accessed where it is computed.
        in_order: whether neighbours in a row of the tile are neighbours in memory.
    """

    node: Node
    stored: bool
    home: bool = True
    in_order: bool = True


@dataclass(frozen=True)
class Overwriting:
    """Which values of a kernel may be written over which: no element is written before it is read.

    Attributes:
        read: values that are loaded where they are computed and never stored, each with the place
            of its last load among the kernel's accesses.
        written: values that are stored and never loaded, each with the place of its store.
    """

    read: Mapping[Node, int]
    written: Mapping[Node, int]

    def allows(self, x: Node, y: Node) -> bool:
        """Whether y can be written over x."""
        return x in self.read and y in self.written and self.read[x] < self.written[y]


@dataclass
class Code:
    """The slots of a kernel.

    Attributes:
        stages: the slot after every anchor, None where there is nothing to do.
        ratios: between anchors, the factor that the accumulator is multiplied by, None for 1.
        pointers: the memory that all slots of the kernel take, each with its place in their tuple.
        accesses: loads and stores of values, in the order in which they happen.
    """

    stages: list[str | None] = field(default_factory=list)
    ratios: list[str | None] = field(default_factory=list)
    pointers: dict[Buffer, int] = field(default_factory=dict)
    accesses: list[Access] = field(default_factory=list)

    @property
    def in_order(self) -> bool:
        """Whether all accesses are in order."""
        return all(a.in_order for a in self.accesses)

    @property
    def overwriting(self) -> Overwriting:
        """Which values may be written over which; none where several slots access them."""
        if sum(slot is not None for slot in self.stages) != 1:
            return Overwriting({}, {})
        places: dict[Node, list[int]] = {}
        for place, access in enumerate(self.accesses):
            places.setdefault(access.node, []).append(place)
        read: dict[Node, int] = {}
        written: dict[Node, int] = {}
        for node, found in places.items():
            stored = [self.accesses[place].stored for place in found]
            if all(self.accesses[place].home for place in found):
                if not any(stored):
                    read[node] = found[-1]
                elif len(found) == 1:
                    written[node] = found[0]
        return Overwriting(read, written)


class Functions:
    """The functions of a module, each once: layers of one shape share their code.

    Attributes:
        names: the name of every function, by its kind, its decorator and its text.
    """

    def __init__(self) -> None:
        self.names: dict[tuple[str, str, str], str] = {}

    def add(
        self, kind: str, parameters: str, body: Sequence[str], decorator: str = "@triton.jit"
    ) -> str:
        """Returns the name of a function with this body."""
        text = "\n".join([f"({parameters}):", *(f"    {line}" for line in body)])
        return self.names.setdefault((kind, decorator, text), f"{kind}_{len(self.names)}")

    @property
    def source(self) -> str:
        """The source of all of them."""
        found = self.names.items()
        return "\n\n\n".join(f"{jit}\ndef {name}{text}" for (_, jit, text), name in found)
