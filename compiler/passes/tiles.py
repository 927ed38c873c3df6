"""What a program of a pass holds at once, by what its chip has room for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from .space import Side, Tile

FEWEST = 16  # numbers of a row that a product of tiles takes at least
WARP = 32  # threads; where there are more, each holds less
REGISTERS = 224  # of a thread, that a loop takes before something spills
# The tiles of passes with products, the largest first. Rows come in 64 for each group of four warps
# that multiplies together.
WITH_PRODUCTS = (
    Tile(128, 64, 8), Tile(64, 64, 4), Tile(128, 32, 8), Tile(64, 32, 4), Tile(64, 32, 8),
    Tile(64, 32, 8, 1),
)  # fmt: skip
BY_STEPS = (
    Tile(64, 32, 8, 1),
    Tile(64, 16, 8, 1),
)  # of which a program has one sum that is as deep as operands
SMALLEST = Tile(64, 16, 4, 1)  # of what does not fit
WITHOUT = {
    Side.ROWS: Tile(1, 1024, lanes=True),
    Side.COLUMNS: Tile(128, 16, lanes=True),
}


class Limits(Protocol):
    """What a chip holds.

    Attributes:
        shared: the bytes of shared memory that one program may have.
        spares_registers: whether products take their operands from there.
    """

    @property
    def shared(self) -> int:  # noqa: D102
        ...

    @property
    def spares_registers(self) -> bool:  # noqa: D102
        ...


@dataclass(frozen=True)
class Needs:
    """What a loop holds, in tiles.

    Attributes:
        own: the operands that a program owns.
        other: those that it goes through.
        depth: the numbers of a row of them.
        bytes: the bytes of a number.
        wide: the products that are tiles.
        accumulators: the sums that are as deep as operands.
        by_steps: whether products are taken step by step, without tensor cores.
    """

    own: int
    other: int
    depth: int
    bytes: int
    wide: int
    accumulators: int
    by_steps: bool = False

    def shared(self, tile: Tile) -> int:
        """Returns the bytes of shared memory, as measured: operands, and a tile on its way."""
        passing = self.other * tile.other * tile.stages
        return ((self.own * tile.own + passing) * self.depth + tile.own * tile.other) * self.bytes

    def registers(self, tile: Tile) -> float:
        """Returns the registers of a thread, as measured: three tiles, and most of each product."""
        tiles = 3 + (0.8 if self.bytes == 2 else 1.3) * self.wide
        shared = 1.5 if tile.own < 16 * tile.warps else 1.0  # warps beside each other hold the same
        row = self.accumulators * self.depth + tiles * tile.other
        return 48 + shared * tile.own * row / (WARP * tile.warps)


def padded(depth: int) -> int:
    """Returns the next power of two that a product of tiles takes."""
    return max(FEWEST, 1 << (depth - 1).bit_length())


def tile_of(side: Side, needs: Needs, limits: Limits) -> Tile | None:
    """Returns what a program of a pass holds at once; None where that is too much."""
    if not needs.wide and not needs.accumulators:
        return WITHOUT[side]
    if needs.by_steps:
        much = needs.depth > 64 or needs.wide > 2
        return BY_STEPS[much] if needs.accumulators <= 1 else None
    most = REGISTERS if limits.spares_registers else 0.8 * REGISTERS
    fitting = (
        tile
        for tile in WITH_PRODUCTS
        if needs.shared(tile) <= limits.shared and needs.registers(tile) <= most
    )
    return next(fitting, None)
