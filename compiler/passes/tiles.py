"""What a program of a pass holds at once, by what its chip has room for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..graph.ir import Op
from ..streaming.streams import Stream
from .sinks import Sink
from .space import Side, Tile


class Limits(Protocol):
    """What a chip holds.

    Attributes:
        shared: the bytes of shared memory that one program may have.
    """

    @property
    def shared(self) -> int:  # noqa: D102
        ...


def tile_of(
    stream: Stream, side: Side, sinks: Sequence[Sink], precision: str, limits: Limits
) -> Tile:
    """Returns what a program of a pass holds at once."""
    products = [n for n in stream.nodes if n.op is Op.MATMUL]
    if not products:
        return Tile(4, 1024, 4) if side is Side.ROWS else Tile(128, 32, 4)
    return Tile(64, 64, 4) if len(products) <= 4 else Tile(64, 32, 4)
