"""Contractions in the interpreter against PyTorch: any window, odd sizes, several terms, splits."""

import itertools

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from newtriton.kernels.contraction import (
    Geometry,
    Tiles,
    contraction,
    contraction_reference,
)
from newtriton.kernels.outer import OuterGeometry, outer, outer_reference

from ..tolerances import RELATIVE, relative_error

SMALL, WIDE, SPLIT = (
    Tiles(32, 32, 16, 2, 4),
    Tiles(16, 64, 32, 4, 4),
    Tiles(64, 16, 64, 1, 4, 3),
)
# size, channels, outputs, kernel, stride, padding, dilation, groups, batch
WINDOWS = [
    ((5, 5), 16, 32, (3, 3), (1, 1), (1, 1), (1, 1), 1, 3),
    ((7, 5), 17, 33, (3, 2), (1, 1), (1, 0), (1, 1), 1, 2),
    ((6, 6), 3, 5, (3, 3), (2, 2), (1, 1), (1, 1), 1, 3),
    ((9, 8), 20, 7, (3, 3), (2, 1), (2, 2), (2, 2), 1, 1),
    ((4, 4), 32, 16, (1, 1), (1, 1), (0, 0), (1, 1), 2, 2),
    ((8, 8), 18, 65, (7, 5), (1, 1), (3, 2), (1, 1), 1, 1),
    ((1, 1), 65, 3, (1, 1), (1, 1), (0, 0), (1, 1), 1, 17),
    ((3, 3), 1, 1, (3, 3), (3, 3), (0, 0), (1, 1), 1, 1),
]


@triton.jit
def keep(acc, i, j, k, m, n, mr, mc, p, batch):
    """Writes the accumulator to parts of `p[1]` rows and columns."""
    rows = tl.load(p[1])
    columns = tl.load(p[1] + 1)
    tl.store(p[0] + k * rows * columns + m[:, None] * columns + n[None, :], acc, mask=mr & mc)


@triton.jit
def keep_first(acc, i, j, k, m, n, mr, mc, p, batch):
    """Writes what there is after the first term behind the parts of the result."""
    rows = tl.load(p[1])
    columns = tl.load(p[1] + 1)
    at = (tl.load(p[1] + 2) + k) * rows * columns + m[:, None] * columns + n[None, :]
    tl.store(p[0] + at, acc, mask=mr & mc)


@triton.jit
def half(p, batch):
    """A factor between two terms."""
    return 0.5


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def poisoned(rows: int, columns: int, splits: int) -> tuple[Tensor, Tensor]:
    """Memory full of NaN for the result and the first term, and the sizes for the slots."""
    return (
        torch.full((2, splits, rows, columns), float("nan")),
        torch.tensor([rows, columns, splits], dtype=torch.int32),
    )


def grid(size, kernel, stride, padding, dilation):
    return tuple(
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True)
    )


def stages(terms: int) -> dict[str, tuple]:
    """The first term is kept and halved, the sum is kept."""
    if terms == 1:
        return {"STAGES": (keep,), "RATIOS": (None,)}
    between = (keep_first, *(None,) * (terms - 2), keep)
    return {"STAGES": between, "RATIOS": (half, *(None,) * (terms - 1))}


def check(out: Tensor, wanted: list[Tensor]) -> None:
    """Result and first term against the oracle in float64."""
    limit = RELATIVE[torch.float32]
    total = wanted[0] if len(wanted) == 1 else 0.5 * wanted[0] + sum(wanted[1:])
    assert relative_error(out[0].double().sum(0), total) < limit
    if len(wanted) > 1:
        assert relative_error(out[1].double().sum(0), wanted[0]) < limit


@pytest.mark.parametrize("tiles", [SMALL, WIDE, SPLIT], ids=["small", "wide", "split"])
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_sums_of_convolutions_equal_pytorchs(window, backward: bool, tiles: Tiles):
    size, channels, outputs, kernel, stride, padding, dilation, groups, n = window
    out_size = grid(size, kernel, stride, padding, dilation)
    ends = [(size, channels // groups), (out_size, outputs // groups)]
    (source, c), (target, columns) = ends[::-1] if backward else ends
    geometry = Geometry(
        source, c, target, columns, groups, kernel, stride, padding, dilation, backward
    )
    terms = 1 + WINDOWS.index(window) % 3
    xs = [random(n, *source, c * groups) for _ in range(terms)]
    ws = [random(columns * groups, *kernel, c) for _ in range(terms)]
    rows = n * target[0] * target[1]
    out, sizes = poisoned(rows, columns * groups, tiles.split)
    contraction[(geometry.instances(tiles, rows),)](
        tuple(xs), tuple(ws), (out, sizes), n, rows, geometry.trips(tiles.bk), 1, 1,
        **geometry.constants(), **tiles.constants(), PREC="ieee", TOGETHER=False, **stages(terms),
    )  # fmt: skip
    check(
        out,
        [contraction_reference(x.double(), w.double(), geometry) for x, w in zip(xs, ws)],  # noqa: B905
    )


@pytest.mark.parametrize("tiles", [SMALL, WIDE, SPLIT], ids=["small", "wide", "split"])
@pytest.mark.parametrize("stacks", [(4, 4), (4, 2), (1, 4)], ids=str)
@pytest.mark.parametrize("sizes", [(33, 20, 17), (5, 3, 1), (65, 64, 40)], ids=str)
def test_stacks_of_matrices_equal_pytorchs(sizes, stacks: tuple[int, int], tiles: Tiles):
    (run, c, columns), (left, right) = sizes, stacks
    geometry = Geometry((1, 1), c, (1, 1), columns, run=run)
    xs, ws = ([random(n, m, c) + q for q in (0, 1)] for n, m in ((left, run), (right, columns)))
    rows = 4 * run
    out, sizes = poisoned(rows, columns, tiles.split)
    contraction[(geometry.instances(tiles, rows),)](
        tuple(xs), tuple(ws), (out, sizes), 4, rows, geometry.trips(tiles.bk), left, right,
        **geometry.constants(), **tiles.constants(), PREC="ieee", TOGETHER=False, **stages(2),
    )  # fmt: skip
    check(
        out,
        [
            (x.double().repeat(4 // left, 1, 1) @ w.double().repeat(4 // right, 1, 1).mT).flatten(
                0, 1
            )
            for x, w in zip(xs, ws, strict=True)
        ],
    )


@pytest.mark.parametrize("tiles", [SMALL, WIDE], ids=["small", "wide"])
@pytest.mark.parametrize("window", WINDOWS[:2] + WINDOWS[3:5], ids=str)
def test_three_terms_in_one_loop(window, tiles: Tiles):
    size, channels, outputs, kernel, stride, padding, dilation, groups, n = window
    target, c, columns = grid(size, kernel, stride, padding, dilation), channels // groups, outputs
    geometry = Geometry(
        size, c, target, columns // groups, groups, kernel, stride, padding, dilation
    )
    x, y = random(n, *size, channels), random(n, *size, channels) + 1.0
    v, w = random(columns, *kernel, c), random(columns, *kernel, c) - 1.0
    rows = n * target[0] * target[1]
    out, sizes = poisoned(rows, columns, 1)
    contraction[(geometry.instances(tiles, rows),)](
        (x, x, y), (v, w, v), (out, sizes), n, rows, geometry.trips(tiles.bk), 1, 1,
        **geometry.constants(), **tiles.constants(), PREC="ieee", TOGETHER=True,
        STAGES=(keep_first, None, keep), RATIOS=(None, None, None),
    )  # fmt: skip
    first, second, third = (
        contraction_reference(a.double(), b.double(), geometry) for a, b in ((x, v), (x, w), (y, v))
    )
    assert relative_error(out[1, 0].double(), first) < RELATIVE[torch.float32]
    assert relative_error(out[0, 0].double(), second + third) < RELATIVE[torch.float32]


@pytest.mark.parametrize("tiles", [SMALL, WIDE, SPLIT], ids=["small", "wide", "split"])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_outer_products(window, tiles: Tiles):
    size, channels, outputs, kernel, stride, padding, dilation, groups, n = window
    out_size = grid(size, kernel, stride, padding, dilation)
    geometry = OuterGeometry(
        size, channels // groups, out_size, outputs // groups, groups, kernel, stride, padding,
        dilation,
    )  # fmt: skip
    terms = 1 + WINDOWS.index(window) % 3
    gs = [random(n, *out_size, outputs) for _ in range(terms)]
    xs = [random(n, *size, channels) for _ in range(terms)]
    rows, columns = geometry.shape
    out, sizes = poisoned(rows * groups, columns, tiles.split)
    pixels = n * out_size[0] * out_size[1]
    outer[(geometry.instances(tiles),)](
        tuple(gs), tuple(xs), (out, sizes), n, pixels, -(-pixels // tiles.bk),
        **geometry.constants(), **tiles.constants(), PREC="ieee", **stages(terms),
    )  # fmt: skip
    check(out, [outer_reference(g.double(), x.double(), geometry) for g, x in zip(gs, xs)])  # noqa: B905


@pytest.mark.parametrize(
    ("columns", "groups", "ones"), list(itertools.product((1, 3, 17, 65), (1, 2), (False, True)))
)
def test_grams_equal_pytorchs(columns: int, groups: int, ones: bool):
    x = random(33, 1, 1, columns * groups)
    geometry = OuterGeometry((1, 1), columns, (1, 1), columns, groups, ones=ones)
    rows, width = geometry.shape
    out, sizes = poisoned(rows * groups, width, SPLIT.split)
    outer[(geometry.instances(SPLIT),)](
        (x,), (x,), (out, sizes), 33, 33, 1, **geometry.constants(), **SPLIT.constants(),
        PREC="ieee", **stages(1),
    )  # fmt: skip
    check(out, [outer_reference(x.double(), x.double(), geometry)])
    if ones:
        assert out[0].sum(0)[-1, -1] == 33
