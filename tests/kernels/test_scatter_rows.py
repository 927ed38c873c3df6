"""Rows added at indices, by kernels in the interpreter, against a product with one-hots."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from newtriton.kernels.scatter_rows import (
    WAYS,
    RowGeometry,
    RowTiles,
    add_parts,
    find_words,
    merge_runs,
    merges,
    scatter_rows,
    scatter_rows_reference,
    sort_runs,
)

from ..tolerances import RELATIVE, relative_error

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # masked elements, in NumPy


@triton.jit
def store(acc, i, j, split, m, n, mm, mn, p, batch):
    out, COLUMNS = p
    tl.store(out + m[:, None] * COLUMNS + n[None, :], acc, mask=mm & mn)


def numbers(count: int, *shape: int) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))


def ordered(index: Tensor, size: int, tiles: RowTiles) -> Tensor:
    """Returns the sorted words, and behind them their positions."""
    count, shapes = len(index), RowGeometry(size, 1)
    constants, instances = shapes.constants(tiles), shapes.instances(tiles, 1, count)
    first, second = torch.full((2, 2 * count), -(1 << 31), dtype=torch.int32)
    sort_runs[(instances[sort_runs],)](index, first, count, size, **constants[sort_runs])
    for run in merges(count, tiles.run):
        merge_runs[(instances[merge_runs],)](
            first, second, count, run, run.bit_length(), **constants[merge_runs]
        )
        first, second = second, first
    return first


def added(rows: Tensor, index: Tensor, size: int, tiles: RowTiles) -> Tensor:
    """Returns rows, copies×positions×D, added at indices, by all kernels."""
    (copies, count, columns), shapes = rows.shape, RowGeometry(size, rows.shape[-1])
    constants, instances = shapes.constants(tiles), shapes.instances(tiles, copies, count)
    order, parts = ordered(index, size, tiles), count // tiles.part
    starts = torch.full((size + 1,), -(1 << 31), dtype=torch.int32)
    sums = torch.full((copies * max(1, parts), columns), float("nan"))
    out = torch.full((copies, size, columns), float("nan"))
    find_words[(instances[find_words],)](
        order, starts, count, size, count.bit_length(), **constants[find_words]
    )
    if parts:
        add_parts[(instances[add_parts],)](rows, order, sums, count, parts, **constants[add_parts])
    scatter_rows[(instances[scatter_rows],)](
        rows, order, starts, sums, (out, columns), 1, copies * size, count, parts,
        **constants[scatter_rows], STAGES=(store,),
    )  # fmt: skip
    return out


SMALL = RowTiles(4, 8, 16, 16)
CASES = {  # indices, size of the table, copies, columns
    "one row": (torch.tensor([2]), 5, 1, 3),
    "odd sizes": (torch.arange(67) * 5 % 37, 37, 3, 11),
    "one word alone": (torch.full((149,), 6), 9, 2, 8),
    "one word nearly always": (torch.arange(203).clamp(max=4) * 3, 16, 1, 1),
    "a table of one row": (torch.zeros(33, dtype=torch.long), 1, 1, 20),
    "many runs": (torch.arange(16 * WAYS + 5).flip(0) // 3, 60, 1, 2),
    "runs of runs": (torch.arange(16 * WAYS**2 + 1) * 7 % 50, 50, 1, 1),
}


@pytest.mark.interpreter
@pytest.mark.parametrize("case", CASES)
def test_rows_are_added_at_their_words(case: str) -> None:
    index, size, copies, columns = CASES[case]
    rows = numbers(copies, len(index), columns)
    found = added(rows, index, size, SMALL)
    expected = scatter_rows_reference(rows.double(), index, size)
    assert relative_error(found.double(), expected) < RELATIVE[torch.float32]
    untouched = torch.bincount(index, minlength=size) == 0
    assert (found[:, untouched] == 0).all()
    assert torch.equal(found, added(rows, index, size, SMALL))


@pytest.mark.interpreter
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32], ids=str)
def test_positions_are_sorted_and_equal_words_keep_their_order(dtype: torch.dtype) -> None:
    index = torch.randint(0, 9, (16 * WAYS + 37,), generator=torch.Generator().manual_seed(0))
    words, positions = ordered(index.to(dtype), 9, SMALL).view(2, -1)
    expected = torch.sort(index, stable=True)
    assert torch.equal(words, expected.values.int())
    assert torch.equal(positions, expected.indices.int())


@pytest.mark.interpreter
def test_words_that_a_table_does_not_have_are_left_out() -> None:
    index = torch.tensor([3, -1, 0, 5, 2**31 - 1, -(2**31), 2**32 + 1, 3, *[7] * 40])
    rows, inside = numbers(1, len(index), 4), (index >= 0) & (index < 5)
    found = added(rows, index, 5, SMALL)
    expected = scatter_rows_reference(rows[:, inside], index[inside], 5)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("count", "expected"), [(1, 16), (8192, 128), (16384, 128), (1 << 24, 1024)]
)
def test_parts_are_as_long_as_there_are_many(count: int, expected: int) -> None:
    shapes = RowGeometry(50_257, 768)
    tiles = shapes.tiles(1, count, 1024)
    assert tiles == RowTiles(4, 256, 256, expected)
    assert shapes.instances(tiles, 2, 8192)[scatter_rows] == -(-2 * 50_257 // 4) * 3
