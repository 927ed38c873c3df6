"""How a contraction is launched: its geometry, and the tiles chosen for it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from ...compiler.graph.ir import Node, Op, concrete
from ...compiler.lowering.code import Tile
from ...kernels.contraction import Geometry, Tiles, contraction, programs
from ...kernels.lags import PatchGeometry, assemble, rectangle_products
from ...kernels.outer import OuterGeometry, outer
from ...kernels.pointwise import power
from .chips import Chip
from .compiling import Job

# Columns and depth of the largest tiles that compile without spills.
WIDEST = {"ieee": 64, "tf32x3": 64, "tf32": 128, "bf16": 128}
DEPTH = {"ieee": 16, "tf32x3": 32, "tf32": 32, "bf16": 64}


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
    if node.op in (Op.PATCH_GRAM, Op.SPECTRAL):
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


def computable(node: Node) -> bool:
    """Whether a skeleton computes a contraction."""
    return node.op is Op.PATCH_GRAM or geometry(node) is not None


def choose(
    node: Node, batch: int, precision: str, chip: Chip | None, together: bool = False
) -> Choice:
    """The launch of a contraction at a batch size; `together`, of three that share operands.

    Without a chip it is one for the interpreter.
    """
    shapes = geometry(node)
    assert shapes is not None
    image = node if isinstance(shapes, Geometry) else node.inputs[0]
    rows = math.prod(concrete(image.shape[:-1], batch))
    if node.op is Op.GRAM and precision in ("tf32", "bf16"):
        precision = "tf32x3"
    constants: dict[str, Any] = {"PREC": _product(precision, chip)}
    if isinstance(shapes, Geometry):
        tiles = _contraction_tiles(shapes, rows, precision, chip)
        constants["TOGETHER"] = together and not shapes.flat and tiles.split == 1
        if constants["TOGETHER"]:
            tiles = _for_three(tiles, chip)
        strips = shapes.groups * -(-shapes.columns // tiles.bn) * tiles.strips
        launch, count, trips = contraction, programs(shapes, tiles, rows), shapes.trips(tiles.bk)
    else:
        tiles = _outer_tiles(shapes, rows, precision, chip)
        strips = -(-shapes.shape[1] // tiles.bn) * tiles.strips
        launch, count, trips = outer, shapes.programs(tiles), -(-rows // tiles.bk)
    constants |= shapes.constants() | tiles.constants()
    if chip is not None:
        constants |= _options(tiles, precision, chip, 2 if constants.get("TOGETHER") else 1)
        constants |= chip.limits if launch is contraction else {}
    tile = Tile(tiles.bm, tiles.bn // tiles.strips, strips)
    return Choice(launch, count, rows, trips, constants, tile, tiles.split)


@dataclass(frozen=True)
class PatchChoice:
    """The two launches of a patch Gram: programs and arguments of each, and memory between."""

    shapes: PatchGeometry
    programs: int
    constants: dict[str, Any]
    blocks: int
    assembly: dict[str, Any]
    scratch: int

    def jobs(self, name: str) -> Iterator[Job]:
        """Both kernels, to compile ahead of time."""
        constants = dict(self.constants)
        precision, warps = constants["PREC"], constants.pop("num_warps")
        stages = constants.pop("num_stages")
        pointers = {n: "*i32" for n in ("items", "pairs", "terms")}
        pointers |= {n: "*fp32" for n in ("a", "products", "out", "scale", "patches")}
        pointers |= {"scale": "fp32", "patches": "fp32", "batch": "i32"}
        tile = (constants["BM"], constants["BN"], constants["BK"])
        yield Job(
            f"{name} products", "outer", rectangle_products, pointers, constants, precision, warps,
            stages, flat=constants["C"] < 16, tile=tile,
        )  # fmt: skip
        yield Job(f"{name} assembly", "pointwise", assemble, pointers, self.assembly)


def choose_patches(node: Node, batch: int, precision: str, chip: Chip | None) -> PatchChoice:
    """The launches of a patch Gram at a batch size."""
    image = node.inputs[0].shape
    shapes = PatchGeometry(
        image[-3:-1], image[-1] // node["groups"], node["groups"], node["kernel"], node["stride"],
        node["padding"], node["dilation"], node["homogeneous"],
    )  # fmt: skip
    precision = "ieee" if precision == "ieee" else "tf32x3"
    if chip is None:
        side = _between(shapes.channels, 16, 64)
        tiles = Tiles(side, side, 64, 1, 4, 2)
        corner = (64, 64)
    else:
        bm, bn = _between(shapes.channels, 64, 128), 64
        bk = DEPTH[precision]
        count = shapes.programs(Tiles(bm, bn, bk, 1, 8))
        most = -(-batch * math.prod(shapes.size) // 256)
        tiles = Tiles(bm, bn, bk, 1, 8, max(1, min(2 * chip.programs // count, most, 8)))
        corner = (16, 64)
    constants = shapes.constants() | tiles.constants() | {"PREC": _product(precision, chip)}
    del constants["STRIPS"]
    d = shapes.dimension
    blocks = -(-shapes.groups * d // corner[0]) * -(-d // corner[1])
    assembly = shapes.assembly(tiles.split, corner)
    if chip is not None:
        constants |= _options(tiles, precision, chip)
        assembly |= chip.limits
    scratch = shapes.scratch(tiles.split)
    return PatchChoice(shapes, shapes.programs(tiles), constants, blocks, assembly, scratch)


def _product(precision: str, chip: Chip | None) -> str:
    """The precision that `tl.dot` is asked for."""
    precision = "tf32" if precision == "bf16" else precision
    return precision if chip is None else chip.product(precision)


def _options(tiles: Tiles, precision: str, chip: Chip, pairs: int = 1) -> dict[str, int]:
    """Of a kernel whose loop copies so many pairs of operands a turn."""
    size = pairs * (tiles.bm + tiles.bn) * tiles.bk * (2 if precision == "bf16" else 4)
    return {"num_warps": tiles.warps, "num_stages": chip.stages(size)}


def _between(n: int, least: int, most: int) -> int:
    """The next power of two, within bounds."""
    return max(least, min(most, power(n)))


def _contraction_tiles(shapes: Geometry, rows: int, precision: str, chip: Chip | None) -> Tiles:
    if chip is None:
        return Tiles(64, _between(shapes.columns, 16, 32), 32, 1, 4)
    depth = shapes.channels * (shapes.taps if shapes.flat else 1)
    bk = _between(depth, 16, DEPTH[precision])
    bm, bn = 128, _between(shapes.columns, 64, WIDEST[precision])

    def count() -> int:
        return -(-rows // bm) * -(-shapes.columns // bn) * shapes.groups

    if count() < chip.programs:
        bm = 64
    if count() < chip.programs:
        bn = 64
    split = 1
    if count() < chip.programs // 2:
        split = max(1, min(chip.programs // count(), shapes.trips(bk) // 16, 8))
    return Tiles(bm, bn, bk, bn // 32, _warps(bm, bn, precision, chip), split)


def _for_three(tiles: Tiles, chip: Chip | None) -> Tiles:
    """Tiles of three accumulators: eight warps, and no more rows than they can hold."""
    return replace(tiles, bm=min(tiles.bm, chip.rows) if chip else tiles.bm, warps=8)


def _outer_tiles(shapes: OuterGeometry, pixels: int, precision: str, chip: Chip | None) -> Tiles:
    rows, columns = shapes.shape
    if chip is None:
        return Tiles(_between(rows, 16, 64), _between(columns, 16, 64), 64, 2, 4, 2)
    bm = _between(rows, 64, 128)
    bn = _between(columns, 64, 64 if precision == "tf32x3" else 128)
    deep = precision == "bf16" and rows == 64 and shapes.channels >= 16
    bk = 128 if deep else DEPTH[precision]
    count = shapes.groups * -(-rows // bm) * -(-columns // bn)
    split = max(1, min(2 * chip.programs // count, -(-pixels // bk) // 8, 64))
    return Tiles(bm, bn, bk, bn // 32, _warps(bm, bn, precision, chip), split)


def _warps(bm: int, bn: int, precision: str, chip: Chip) -> int:
    """Two warp groups for 128 rows, and where products take registers themselves."""
    large = bm == 128 or bm * bn > 64 * chip.rows
    return 8 if large or precision in ("ieee", "tf32x3") else 4
