"""Tiles cover a space once each, in shapes that are powers of two."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

from newtriton.kernels import pointwise


@triton.jit
def count(acc, i, j, split, m, n, mm, mn, p, batch):
    seen, COLUMNS = p
    at = seen + m[:, None] * COLUMNS + n[None, :]
    tl.store(at, tl.load(at, mask=mm & mn, other=0.0) + 1.0 + acc, mask=mm & mn)


@triton.jit
def launch(seen, batch, rows, COLUMNS: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr):
    pid = tl.program_id(0)
    pointwise.tile(pid, (seen, COLUMNS), batch, rows, COLUMNS, BR, BC, count)


@pytest.mark.interpreter
@pytest.mark.parametrize(("rows", "columns"), [(5, 7), (8, 4), (1, 9)])
def test_every_element_is_in_one_tile(rows: int, columns: int) -> None:
    seen = torch.zeros(rows * columns + 3)
    tiles = -(-rows // 2) * -(-columns // 4)
    launch[(tiles,)](seen, 1, rows, columns, 2, 4)
    assert seen.tolist() == [1.0] * (rows * columns) + [0.0] * 3


@pytest.mark.parametrize(
    ("rows", "columns", "expected"),
    [
        (1000, 64, (16, 64)),
        (1000, 10, (64, 16)),  # as many rows as leave room for the columns
        (3, 10, (4, 16)),  # no more rows than there are
        (1000, 5000, (4, 256)),  # no wider than the widest
        (1, 1, (1, 1)),
    ],
)
def test_a_tile_has_about_as_many_elements_as_asked(
    rows: int, columns: int, expected: tuple[int, int]
) -> None:
    assert pointwise.tile_shape(rows, columns, 256, 1024) == expected


def test_the_next_power_of_two() -> None:
    assert [pointwise.power(n) for n in (1, 2, 3, 4, 5, 1000)] == [1, 2, 4, 4, 8, 1024]
