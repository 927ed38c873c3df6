"""Generated code as data: the slots of a kernel, the memory they take and how they access it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ..graph.ir import Node


@dataclass(frozen=True)
class Tile:
    """What a slot sees at once.

    Attributes:
        rows: the tile's rows.
        columns: the tile's columns.
        strips: how many strips of so many columns a row of the kernel's space has.
    """

    rows: int
    columns: int
    strips: int


@dataclass(frozen=True)
class Part:
    """Memory between two kernels.

    Attributes:
        of: a sum that tiles give parts of, or a contraction whose accumulator is written apart.
    """

    of: Node


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

    def may_replace(self, x: Node, y: Node) -> bool:
        """Whether y can be written over x: each element is read before it is written, by itself."""
        found = [a for a in self.accesses if a.node in (x, y)]
        return sum(slot is not None for slot in self.stages) == 1 and all(
            a.home and a.stored is (i == len(found) - 1) for i, a in enumerate(found)
        )


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
