"""Tiles: the largest that a chip has room for, and none where it has not."""

from __future__ import annotations

import pytest

from newtriton.compiler.passes.space import Side
from newtriton.compiler.passes.tiles import WITHOUT, Needs, padded, tile_of
from newtriton.runtime.fused.chips import CHIPS

FORWARD = Needs(own=1, other=2, depth=64, bytes=4, wide=1, accumulators=1)


@pytest.mark.parametrize("chip", ["sm_80", "sm_90", "gfx942"])
def test_what_fits_has_room(chip: str) -> None:
    tile = tile_of(Side.ROWS, FORWARD, CHIPS[chip])
    assert tile is not None and FORWARD.shared(tile) <= CHIPS[chip].shared


def test_more_accumulators_take_smaller_tiles_until_nothing_fits() -> None:
    sizes = []
    for count in range(1, 12):
        needs = Needs(own=3, other=3, depth=128, bytes=4, wide=3, accumulators=count)
        tile = tile_of(Side.ROWS, needs, CHIPS["sm_90"])
        sizes.append(tile.own * tile.other if tile else 0)
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] == 0


def test_without_products_only_elements_are_held() -> None:
    nothing = Needs(own=0, other=0, depth=0, bytes=4, wide=0, accumulators=0)
    for side in Side:
        assert tile_of(side, nothing, CHIPS["sm_90"]) == WITHOUT[side]


@pytest.mark.parametrize(("depth", "found"), [(3, 16), (16, 16), (17, 32), (64, 64), (80, 128)])
def test_products_take_powers_of_two(depth: int, found: int) -> None:
    assert padded(depth) == found
