"""How kernels are tiled: a contraction's shapes, and the tiles chosen for them on a chip.

`SHAPES` has the shapes of each op's contraction, `TILINGS` the tiling of each sort of shapes. No
chip means the interpreter, where few large tiles are fastest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ...compiler.graph.ir import Node, Op, Shape, concrete, is_batched
from ...compiler.lowering.code import Tile
from ...compiler.lowering.elements import Reduction, reduction
from ...compiler.lowering.kernel import Kernel, width
from ...compiler.lowering.space import is_outer
from ...kernels.contraction import Geometry, Tiles, contraction
from ...kernels.lags import PatchGeometry
from ...kernels.outer import OuterGeometry, outer
from ...kernels.pointwise import power, tile_shape
from ...kernels.scatter_rows import RowGeometry, RowTiles
from .chips import Chip

# Columns and depth of the largest tiles that compile without spills.
WIDEST = {"ieee": 64, "tf32x3": 64, "tf32": 128, "bf16": 128}
DEPTH = {"ieee": 16, "tf32x3": 32, "tf32": 32, "bf16": 64}
FEW = 15  # channels of images, of which a tile of tensor cores would be mostly empty


@dataclass(frozen=True)
class ContractionTiling:
    """A skeleton on one accumulator, with its arguments.

    Attributes:
        skeleton: the Triton kernel, `contraction` or `outer`.
        instances: the number of its program instances.
        numbers: its run-time arguments besides the batch size: the rows of the result or the pixels
            that are summed, the turns of its loop, and the matrices of each operand's stack.
        constants: its constexpr arguments and Triton's options.
        tile: what a slot sees at once.
        split: the parts of what is summed; another kernel adds them where there are several.
    """

    skeleton: Any
    instances: int
    numbers: dict[str, int]
    constants: dict[str, Any]
    tile: Tile
    split: int


@dataclass(frozen=True)
class PatchTiling:
    """The two launches of a patch Gram: products of rectangles, and their assembly.

    Attributes:
        shapes: the shapes of images and patches.
        instances: the number of program instances that multiply.
        constants: the constexpr arguments and options of the products.
        assembly_instances: the number of program instances that add products to blocks.
        assembly: the constexpr arguments and options of the assembly.
        scratch: the number of elements of all products.
        tile: None, since no slot is called.
        split: one, since the assembly adds the parts.
    """

    shapes: PatchGeometry
    instances: int
    constants: dict[str, Any]
    assembly_instances: int
    assembly: dict[str, Any]
    scratch: int
    tile: None = None
    split: int = 1


@dataclass(frozen=True)
class RowTiling:
    """The launches that add rows at indices.

    Attributes:
        shapes: the shapes of tables and rows.
        count: the number of indices.
        rows: the rows of all tables.
        parts: the parts of the sorted rows that may be added beforehand.
        sums: the number of elements of their sums.
        tiles: how rows are sorted and added.
        instances: by kernel, the number of its program instances.
        constants: by kernel, its constexpr arguments and options.
        tile: what a slot sees at once.
        split: one, since a tile has whole sums.
    """

    shapes: RowGeometry
    count: int
    rows: int
    parts: int
    sums: int
    tiles: RowTiles
    instances: dict[Any, int]
    constants: dict[Any, dict[str, Any]]
    tile: Tile
    split: int = 1


Shapes = Geometry | OuterGeometry | PatchGeometry | RowGeometry
Tiling = ContractionTiling | PatchTiling | RowTiling


# --- shapes ---------------------------------------------------------------------------------------


def _matmul(node: Node) -> Shapes | None:
    """Returns the shapes of a product; by a matrix all rows are one matrix's.

    None of ours has a multiple of the batch size along its columns, or sums over one besides the
    outer products.
    """
    x, y, *_ = node.inputs
    if is_outer(node):
        return OuterGeometry((1, 1), y.shape[1], (1, 1), x.shape[1])
    run, columns = node.shape[-2:]
    channels = x.shape[-2 if node["transpose_a"] else -1]
    stacked = len(y.shape) > 2
    if any(map(is_batched, (columns, channels, *([run] if stacked else [])))):
        return None
    return Geometry((1, 1), channels, (1, 1), columns, run=run if stacked else 0)


def _conv(node: Node) -> Shapes:
    """Returns the shapes of a convolution or of its input gradient."""
    x, w, *_ = node.inputs
    groups = node["groups"]
    return Geometry(
        x.shape[-3:-1], x.shape[-1] // groups, node.shape[-3:-1], node.shape[-1] // groups,
        groups, w.shape[1:3], node["stride"], node["padding"], node["dilation"],
        backward=node.op is Op.CONV_INPUT_GRAD,
    )  # fmt: skip


def _weight_grad(node: Node) -> Shapes:
    ct, image = (x.shape for x in node.inputs)
    groups = node["groups"]
    return OuterGeometry(
        image[-3:-1], image[-1] // groups, ct[-3:-1], ct[-1] // groups, groups, node["kernel"],
        node["stride"], node["padding"], node["dilation"],
    )  # fmt: skip


def _gram(node: Node) -> Shapes:
    channels = node.inputs[0].shape[-1] // node["groups"]
    return OuterGeometry(
        (1, 1), channels, (1, 1), channels, node["groups"], ones=node["homogeneous"]
    )


def _patch_gram(node: Node) -> Shapes:
    image = node.inputs[0].shape
    return PatchGeometry(
        image[-3:-1], image[-1] // node["groups"], node["groups"], node["kernel"], node["stride"],
        node["padding"], node["dilation"], node["homogeneous"],
    )  # fmt: skip


def _scatter_rows(node: Node) -> Shapes:
    return RowGeometry(*node.shape[-2:])


SHAPES: dict[Op, Callable[[Node], Shapes | None]] = {
    Op.MATMUL: _matmul,
    Op.CONV: _conv,
    Op.CONV_INPUT_GRAD: _conv,
    Op.CONV_WEIGHT_GRAD: _weight_grad,
    Op.GRAM: _gram,
    Op.PATCH_GRAM: _patch_gram,
    Op.SCATTER_ROWS: _scatter_rows,
    **dict.fromkeys((Op.SPECTRAL, Op.ALL_SUM), lambda node: None),
}


def computable(node: Node) -> bool:
    """Whether a skeleton of ours computes a contraction."""
    return SHAPES[node.op](node) is not None


# --- tilings --------------------------------------------------------------------------------------


def tiling(
    node: Node, batch: int, precision: str, chip: Chip | None, together: bool = False
) -> Tiling:
    """Returns how a contraction is tiled.

    Args:
        node: a contraction that is `computable`.
        batch: the batch size.
        precision: the precision of its operands.
        chip: what it is compiled for; None for the interpreter.
        together: whether it is one of three contractions that may share a loop.
    """
    shapes = SHAPES[node.op](node)
    assert shapes is not None
    return TILINGS[type(shapes)](shapes, node, batch, precision, chip, together)


def _contraction(
    shapes: Geometry, node: Node, batch: int, precision: str, chip: Chip | None, together: bool
) -> Tiling:
    rows = _pixels(node.shape, batch)
    tiles = _contraction_tiles(shapes, rows, precision, chip)
    together = together and not shapes.flat and tiles.split == 1
    if together:
        tiles = _for_three(tiles, chip)
    constants = shapes.constants() | tiles.constants()
    constants |= {"PREC": _product(precision, chip), "TOGETHER": together}
    if chip is not None:
        constants |= _options(tiles, precision, chip, 2 if together else 1) | chip.limits
    strips = shapes.groups * -(-shapes.columns // tiles.bn) * tiles.strips
    left, right = (math.prod(concrete(x.shape[:-2], batch)) for x in node.inputs[:2])
    numbers = {"rows": rows, "trips": shapes.trips(tiles.bk), "left": left, "right": right}
    return ContractionTiling(
        contraction, shapes.instances(tiles, rows), numbers, constants,
        Tile(tiles.bm, tiles.bn // tiles.strips, strips, shapes.run), tiles.split,
    )  # fmt: skip


def _outer(
    shapes: OuterGeometry, node: Node, batch: int, precision: str, chip: Chip | None, _: bool
) -> Tiling:
    pixels = _pixels(node.inputs[0].shape, batch)
    if node.op is Op.GRAM:
        precision = _of_gram(precision)
    tiles = _outer_tiles(shapes, pixels, precision, chip)
    constants = shapes.constants() | tiles.constants() | {"PREC": _product(precision, chip)}
    if chip is not None:
        constants |= _options(tiles, precision, chip)
    strips = -(-shapes.shape[1] // tiles.bn) * tiles.strips
    return ContractionTiling(
        outer, shapes.instances(tiles),
        {"pixels": pixels, "trips": -(-pixels // tiles.bk)}, constants,
        Tile(tiles.bm, tiles.bn // tiles.strips, strips), tiles.split,
    )  # fmt: skip


def _patches(
    shapes: PatchGeometry, node: Node, batch: int, precision: str, chip: Chip | None, _: bool
) -> Tiling:
    precision = _of_gram(precision)
    tiles, corner = _patch_tiles(shapes, batch, precision, chip)
    constants = shapes.constants() | tiles.constants() | {"PREC": _product(precision, chip)}
    del constants["STRIPS"]
    assembly = shapes.assembly(tiles.split, corner)
    if chip is not None:
        constants |= _options(tiles, precision, chip)
        assembly |= chip.limits
    d = shapes.dimension
    blocks = -(-shapes.groups * d // corner[0]) * -(-d // corner[1])
    scratch = shapes.scratch(tiles.split)
    return PatchTiling(shapes, shapes.instances(tiles), constants, blocks, assembly, scratch)


def _rows(
    shapes: RowGeometry, node: Node, batch: int, precision: str, chip: Chip | None, _: bool
) -> Tiling:
    count, copies = (math.prod(concrete(x, batch)) for x in (node.inputs[1].shape, node.shape[:-2]))
    tiles = _row_tiles(shapes, copies, count, chip)
    parts, rows = count // tiles.part, copies * shapes.size
    tile = Tile(tiles.bm, tiles.bn, -(-shapes.columns // tiles.bn))
    instances = shapes.instances(tiles, copies, count)
    options = chip.limits if chip else {}
    constants = {kernel: found | options for kernel, found in shapes.constants(tiles).items()}
    sums = copies * parts * shapes.columns
    return RowTiling(shapes, count, rows, parts, sums, tiles, instances, constants, tile)


TILINGS: dict[type, Callable[[Any, Node, int, str, Chip | None, bool], Tiling]] = {
    Geometry: _contraction,
    OuterGeometry: _outer,
    PatchGeometry: _patches,
    RowGeometry: _rows,
}


def _pixels(shape: Shape, batch: int) -> int:
    """Returns the number of vectors of channels in a tensor."""
    return math.prod(concrete(shape[:-1], batch))


def _of_gram(precision: str) -> str:
    """Returns the precision of a Gram, a statistic: its operands are not rounded."""
    return "ieee" if precision == "ieee" else "tf32x3"


def _product(precision: str, chip: Chip | None) -> str:
    """Returns the precision that `tl.dot` is asked for."""
    precision = "tf32" if precision == "bf16" else precision
    return precision if chip is None else chip.product(precision)


def _options(tiles: Tiles, precision: str, chip: Chip, pairs: int = 1) -> dict[str, int]:
    """Returns Triton's options for a loop that copies so many pairs of operands in a turn."""
    size = pairs * (tiles.bm + tiles.bn) * tiles.bk * (2 if precision == "bf16" else 4)
    return {"num_warps": tiles.warps, "num_stages": chip.stages(size)}


def _between(n: int, least: int, most: int) -> int:
    """Returns the next power of two, within bounds."""
    return max(least, min(most, power(n)))


def _contraction_tiles(shapes: Geometry, rows: int, precision: str, chip: Chip | None) -> Tiles:
    if chip is None:
        return Tiles(64, _between(shapes.columns, 16, 32), 32, 1, 4)
    depth = shapes.channels * (shapes.taps if shapes.flat else 1)
    bk = _between(depth, 16, DEPTH[precision])
    bm = _between(shapes.run, 64, 128) if shapes.run else 128
    bn = _between(shapes.columns, 64, WIDEST[precision])

    def count() -> int:
        return shapes.down(rows, bm) * -(-shapes.columns // bn) * shapes.groups

    if count() < chip.processors:
        bm = 64
    if count() < chip.processors:
        bn = 64
    split = 1
    if count() < chip.processors // 2:
        split = max(1, min(chip.processors // count(), shapes.trips(bk) // 16, 8))
    return Tiles(bm, bn, bk, bn // 32, _warps(bm, bn, precision, chip), split)


def _for_three(tiles: Tiles, chip: Chip | None) -> Tiles:
    """Returns tiles of three accumulators: eight warps, and no more rows than they can hold.

    Accumulators in tensor memory take no registers, so that fewer warps share the addresses.
    """
    if chip is None:
        return replace(tiles, warps=8)
    warps = tiles.warps if chip.tensor_memory else 8
    return replace(tiles, bm=min(tiles.bm, chip.rows), warps=warps)


def _outer_tiles(shapes: OuterGeometry, pixels: int, precision: str, chip: Chip | None) -> Tiles:
    rows, columns = shapes.shape
    if chip is None:
        return Tiles(_between(rows, 16, 64), _between(columns, 16, 64), 64, 2, 4, 2)
    bm = _between(rows, 64, 128)
    bn = _between(columns, 64, 64 if precision == "tf32x3" else 128)
    deep = precision == "bf16" and rows == 64 and shapes.channels >= 16
    bk = 128 if deep else DEPTH[precision]
    count = shapes.groups * -(-rows // bm) * -(-columns // bn)
    split = max(1, min(2 * chip.processors // count, -(-pixels // bk) // 8, 64))
    return Tiles(bm, bn, bk, bn // 32, _warps(bm, bn, precision, chip), split)


def _patch_tiles(
    shapes: PatchGeometry, batch: int, precision: str, chip: Chip | None
) -> tuple[Tiles, tuple[int, int]]:
    """Returns the tiles of the products, and rows and columns of a tile of the assembly."""
    if chip is None:
        side = _between(shapes.channels, 16, 64)
        return Tiles(side, side, 64, 1, 4, 2), (64, 64)
    tiles, waves = Tiles(_between(shapes.channels, 64, 128), 64, DEPTH[precision], 1, 8), 2
    if shapes.channels <= FEW:
        tiles, waves = Tiles(16, 16, 64, 1, 4), 4
    most = min(-(-batch * math.prod(shapes.size) // 256), 4 * waves)
    split = max(1, min(waves * chip.processors // shapes.instances(tiles), most))
    return replace(tiles, split=split), (16, 64)


def _row_tiles(shapes: RowGeometry, copies: int, count: int, chip: Chip | None) -> RowTiles:
    return shapes.tiles(copies, count, 1024 if chip else 8192)


def _warps(bm: int, bn: int, precision: str, chip: Chip) -> int:
    """Returns two warp groups for 128 rows, and where products take registers themselves."""
    large = bm == 128 or bm * bn > 64 * chip.rows
    return 8 if large or precision in ("ieee", "tf32x3") else 4


# --- everything but contractions ------------------------------------------------------------------


def pointwise_tile(kernel: Kernel, batch: int, elements: int) -> Tile:
    """Returns the tile of a kernel without contractions.

    Args:
        kernel: the kernel.
        batch: the batch size.
        elements: the number of elements that a tile has if nothing speaks against it.
    """
    rows, columns = math.prod(concrete(kernel.space.rows, batch)), kernel.space.columns
    widest = 256 if kernel.space.rows else elements
    if any(map(_sums_columns, kernel.partials)):
        widest, elements = 64, 2 * elements  # tall: few parts
    if any(map(_sums_columns, kernel.body)):
        widest = 16  # many rows are added at once, by many program instances
    if kernel.whole_rows:  # more values are alive at once; 16 bytes a thread in any case
        widest, elements = 2 * columns, elements if _has_halves(kernel) else elements // 2
    br, bc = tile_shape(rows, columns, widest, elements)
    return Tile(br, bc, -(-columns // bc))


def _sums_columns(node: Node) -> bool:
    return node.op is Op.REDUCE_SUM and reduction(node) is Reduction.COLUMNS


def _has_halves(kernel: Kernel) -> bool:
    """Whether a kernel reads or writes values of 16 bits."""
    return any(width(node) == 2 for node in (*kernel.reads, *kernel.writes))
