"""What is kept of rows while tiles pass, in the interpreter: against whole rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import triton
import triton.language as tl

from newtriton.kernels import passes

from ..tolerances import assert_close

pytestmark = pytest.mark.interpreter
ROWS, COLUMNS, TILE = 4, 96, 32


@triton.jit
def running(
    x, out, ROWS: tl.constexpr, COLUMNS: tl.constexpr, TILE: tl.constexpr, KEPT: tl.constexpr
):
    r = tl.arange(0, ROWS)[:, None]
    most = tl.full((ROWS, KEPT), float("-inf"), tl.float32)
    total = tl.zeros((ROWS, KEPT), tl.float32)
    for start in range(0, COLUMNS, TILE):
        c = start + tl.arange(0, TILE)[None, :]
        most, total = passes.add_exponentials(most, total, tl.load(x + r * COLUMNS + c))
    whole = passes.largest_of_row(most)
    shift = passes.finite(whole)
    sums = passes.sum_of_row(total * tl.exp(passes.finite(most) - shift))
    tl.store(out + r, shift + tl.log(sums))


@triton.jit
def visible(x, out, count):
    first, end = passes.seen(x, count, 1, 2.0, -7.0)
    tl.store(out, first)
    tl.store(out + 1, end)
    tl.store(out + 2, passes.largest(x, count, 1, -1.0).to(tl.int32))


def launch(kernel: Any, *given: object, **constants: int) -> None:
    kernel[(1,)](*given, **constants)


@pytest.mark.parametrize("kept", [1, TILE])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_logarithms_of_sums_of_exponentials(kept: int) -> None:
    x = 30.0 * torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(0))
    x[0, :TILE] = float("-inf")  # nothing of the first tile is seen
    out = torch.full((ROWS, 1), torch.nan)
    launch(running, x, out, ROWS=ROWS, COLUMNS=COLUMNS, TILE=TILE, KEPT=kept)
    assert_close(out[:, 0], x.logsumexp(1))


def test_what_is_seen_of_numbers() -> None:
    """2 x − 7 ≤ 0 for 1, 2 and 3, which lie at 1, 2 and 3 of 0-based places."""
    x = torch.tensor([9.0, 1.0, 2.0, 3.0, 8.0])
    out = torch.zeros(3, dtype=torch.int32)
    launch(visible, x, out, len(x))
    assert out.tolist() == [1, 4, -1]
