"""How a contraction is launched: its geometry, and the tiles chosen for it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import triton

from ..compiler.ir import Node, Op, concrete
from ..compiler.slots import Tile
from ..kernels.contraction import Geometry, Tiles, contraction, programs
from ..kernels.outer import OuterGeometry, outer

PROGRAMS = 132  # of one wave: the multiprocessors of an H100


@dataclass(frozen=True)
class Choice:
    """A skeleton with its arguments. tile: what a slot sees. split: parts of what is summed."""

    kernel: Any
    programs: int
    rows: int
    trips: int
    constants: dict[str, Any]
    tile: Tile
    split: int


def geometry(node: Node) -> Geometry | OuterGeometry | None:
    """A contraction's shapes; None where no skeleton computes it."""
    x, *others = node.inputs
    if node.op is Op.GRAM:
        channels = x.shape[-1] // node["groups"]
        ones = node["homogeneous"]
        return OuterGeometry((1, 1), channels, (1, 1), channels, node["groups"], ones=ones)
    if node.op is Op.MATMUL:
        y = others[0]
        if len(y.shape) != 2:
            return None
        if node["transpose_a"]:
            plain = len(x.shape) == 2 and not node["transpose_b"]
            return OuterGeometry((1, 1), y.shape[1], (1, 1), x.shape[1]) if plain else None
        return Geometry((1, 1), x.shape[-1], (1, 1), node.shape[-1])
    if node.op is Op.PATCH_GRAM:
        return None
    groups = node["groups"]
    window = {k: node[k] for k in ("stride", "padding", "dilation")} | {"groups": groups}
    if node.op is Op.CONV_WEIGHT_GRAD:
        image = others[0].shape
        return OuterGeometry(
            image[-3:-1], image[-1] // groups, x.shape[-3:-1], x.shape[-1] // groups,
            kernel=node["kernel"], **window,
        )  # fmt: skip
    return Geometry(
        x.shape[-3:-1], x.shape[-1] // groups, node.shape[-3:-1], node.shape[-1] // groups,
        kernel=others[0].shape[1:3], backward=node.op is Op.CONV_INPUT_GRAD, **window,
    )  # fmt: skip


def choose(node: Node, batch: int, precision: str, interpreted: bool) -> Choice | None:
    """The launch of a contraction at a batch size."""
    shapes = geometry(node)
    if shapes is None:
        return None
    image = node if isinstance(shapes, Geometry) else node.inputs[0]
    rows = math.prod(concrete(image.shape[:-1], batch))
    exact = node.op is Op.GRAM and precision in ("tf32", "bf16")
    constants = {"PREC": "tf32x3" if exact else "tf32" if precision == "bf16" else precision}
    depth = 64 if precision == "bf16" and not exact else 32
    if isinstance(shapes, Geometry):
        tiles = _contraction_tiles(shapes, rows, depth, interpreted)
        strips = shapes.groups * -(-shapes.columns // tiles.bn) * tiles.strips
        launch, count, trips = contraction, programs(shapes, tiles, rows), shapes.trips(tiles.bk)
    else:
        tiles = _outer_tiles(shapes, rows, depth, interpreted)
        strips = -(-shapes.shape[1] // tiles.bn) * tiles.strips
        launch, count, trips = outer, shapes.programs(tiles), -(-rows // tiles.bk)
    constants |= shapes.constants() | tiles.constants()
    if not interpreted:
        constants |= {"num_warps": tiles.warps, "num_stages": tiles.stages}
    tile = Tile(tiles.bm, tiles.bn // tiles.strips, strips)
    return Choice(launch, count, rows, trips, constants, tile, tiles.split)


def _power(n: int, least: int, most: int) -> int:
    """The next power of two, within bounds."""
    return max(least, min(most, int(triton.next_power_of_2(n))))


def _contraction_tiles(shapes: Geometry, rows: int, depth: int, interpreted: bool) -> Tiles:
    if interpreted:
        return Tiles(64, _power(shapes.columns, 16, 32), depth, 1, 4, 2)
    bm, bn = _power(rows, 16, 128), _power(shapes.columns, 16, 128)
    depth = min(depth, _power(shapes.taps * shapes.channels, 16, depth))

    def count() -> int:
        return -(-rows // bm) * -(-shapes.columns // bn) * shapes.groups

    if bm > 64 and count() < PROGRAMS:
        bm = 64
    if bn > 64 and count() < PROGRAMS:
        bn = 64
    trips = shapes.trips(depth)
    split = max(1, min(PROGRAMS // count(), trips // 16, 8)) if count() < PROGRAMS // 2 else 1
    warps = 8 if bm * bn >= 128 * 128 else 4
    return Tiles(bm, bn, depth, max(1, bn // 32), warps, 3, split)


def _outer_tiles(shapes: OuterGeometry, pixels: int, depth: int, interpreted: bool) -> Tiles:
    rows, columns = shapes.shape
    if interpreted:
        return Tiles(_power(rows, 16, 64), _power(columns, 16, 64), 64, 2, 4, 2, 2)
    bm, bn = _power(rows, 16, 128), _power(min(columns, shapes.channels), 16, 128)
    count = shapes.groups * -(-rows // bm) * -(-columns // bn)
    split = max(1, min(2 * PROGRAMS // count, -(-pixels // depth) // 8, 64))
    warps = 8 if bm * bn >= 128 * 128 else 4
    return Tiles(bm, bn, depth, max(1, bn // 32), warps, 3, split)
