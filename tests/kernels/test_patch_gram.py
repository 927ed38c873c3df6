"""The patch Gram by lags and rectangles against im2col: values, work done, memory used."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import newtriton.kernels.patch_gram as module
from newtriton.kernels.patch_gram import (
    NARROW,
    Pair,
    lags_of,
    multiplications,
    patch_gram,
    patch_gram_reference,
    rectangles,
)
from tests.tolerances import relative_error

# map, kernel, stride, padding, dilation
WINDOWS: list[tuple[Pair, Pair, Pair, Pair, Pair]] = [
    ((8, 8), (3, 3), (1, 1), (1, 1), (1, 1)),
    ((6, 9), (3, 3), (1, 1), (0, 0), (1, 1)),
    ((5, 7), (1, 1), (1, 1), (0, 0), (1, 1)),
    ((5, 7), (1, 1), (2, 3), (1, 0), (1, 1)),
    ((7, 4), (2, 3), (1, 1), (1, 2), (1, 1)),
    ((9, 8), (3, 3), (2, 2), (1, 1), (1, 1)),
    ((10, 7), (5, 3), (3, 2), (2, 1), (1, 1)),
    ((9, 9), (2, 2), (3, 3), (0, 0), (1, 1)),  # pixels that no patch visits
    ((9, 11), (2, 3), (2, 4), (0, 0), (1, 1)),  # patches that share no pixel
    ((9, 11), (3, 2), (1, 1), (2, 1), (2, 3)),
    ((9, 11), (3, 3), (2, 3), (2, 4), (3, 2)),
    ((8, 6), (4, 4), (1, 2), (3, 2), (1, 1)),
    ((2, 3), (5, 5), (1, 1), (2, 2), (1, 1)),  # kernels larger than the map
    ((2, 2), (3, 3), (1, 1), (1, 1), (1, 1)),
    ((1, 1), (3, 3), (1, 1), (1, 1), (1, 1)),  # taps that never meet
    ((1, 5), (3, 3), (2, 1), (1, 1), (1, 2)),
    ((3, 3), (2, 2), (1, 1), (4, 4), (2, 2)),  # padding beyond the kernel
    ((5, 8), (3, 2), (1, 2), (0, 0), (2, 2)),  # gaps between the ranges of a lag
]


@pytest.fixture(params=[-(1 << 60), 1 << 60], ids=["rectangles", "rows"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has a patch Gram be taken in one of its two ways, whichever is faster."""
    monkeypatch.setattr(module, "CALL", request.param)


def image(batch: int, size: Pair, channels: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(batch + 10 * channels)
    return torch.randn(batch, *size, channels, dtype=dtype, generator=generator)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("homogeneous", [False, True])
@pytest.mark.parametrize(("channels", "groups"), [(3, 1), (4, 2), (3, 3)])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_it_is_the_gram_of_im2col(
    window: tuple[Pair, Pair, Pair, Pair, Pair], channels: int, groups: int, homogeneous: bool
) -> None:
    size, *rest = window
    for batch in (1, 4):
        a = image(batch, size, channels)
        value = patch_gram(a, *rest, groups, homogeneous, 0.37)
        expected = patch_gram_reference(a, *rest, groups, homogeneous, 0.37)
        assert value.shape == expected.shape
        assert relative_error(value, expected) <= 1e-12


def between(low: int, high: int) -> st.SearchStrategy[Pair]:
    return st.tuples(st.integers(low, high), st.integers(low, high))


@settings(derandomize=True, deadline=None, max_examples=100)
@given(
    between(1, 9), between(1, 4), between(1, 3), between(0, 4), between(1, 3),
    st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.booleans(), st.booleans(),
)  # fmt: skip
def test_any_window_on_any_map(
    size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair,
    batch: int, groups: int, width: int, homogeneous: bool, by_rows: bool,
) -> None:  # fmt: skip
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    assume(all(n + 2 * p > r for n, p, r in zip(size, padding, reach, strict=True)))
    a = image(batch, size, groups * width)
    window = (kernel, stride, padding, dilation, groups, homogeneous)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CALL", 1 << 60 if by_rows else -(1 << 60))
        value = patch_gram(a, *window)
    assert relative_error(value, patch_gram_reference(a, *window)) <= 1e-12


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_equals_im2col_in_float32(window: tuple[Pair, Pair, Pair, Pair, Pair]) -> None:
    size, *rest = window
    a = image(4, size, 4, torch.float32)
    value = patch_gram(a, *rest, 2, True, 0.37)
    assert value.dtype == torch.float32
    expected = patch_gram_reference(a.double(), *rest, 2, True, 0.37)
    assert relative_error(value, expected) <= 1e-5


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_every_element_of_out_is_written(
    window: tuple[Pair, Pair, Pair, Pair, Pair], groups: int
) -> None:
    size, *rest = window
    a = image(2, size, 4)
    expected = patch_gram_reference(a, *rest, groups, True)
    out = torch.full_like(expected, math.nan)
    assert patch_gram(a, *rest, groups, True, out=out) is out
    assert relative_error(out, expected) <= 1e-12


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("channels", [NARROW, NARROW + 1])
def test_few_and_many_channels(channels: int) -> None:
    """Rows are multiplied where they lie, or rectangles copied, the result is the same."""
    a = image(NARROW // 2, (3, 4), channels)
    window = ((3, 3), (1, 1), (1, 1), (1, 1), 1, True)
    assert relative_error(patch_gram(a, *window), patch_gram_reference(a, *window)) <= 1e-12


def test_the_image_may_be_a_view_and_is_not_changed() -> None:
    a = image(2, (6, 5), 8)[..., ::2].transpose(1, 2)
    before = a.clone()
    value = patch_gram(a, (3, 2), padding=(1, 1), homogeneous=True)
    expected = patch_gram_reference(before, (3, 2), padding=(1, 1), homogeneous=True)
    assert relative_error(value, expected) <= 1e-12
    assert torch.equal(a, before)


def test_a_3x3_kernel_has_13_lags_and_sums_each_position_once() -> None:
    lags = lags_of((8, 8), (3, 3), (1, 1), (1, 1), (1, 1))
    pairs = {(lag.y.lag, lag.x.lag) for lag in lags}
    assert len(lags) == len(pairs) == 13
    # on an axis of 8, 8 − |ℓ| positions q have q + ℓ in the image too; lags up to sign:
    # y = 0 with x = 0, 1, 2; y = 1, 2 with x = −2 … 2
    assert multiplications(lags) == 8 * (8 + 7 + 6) + (7 + 6) * (6 + 7 + 8 + 7 + 6) == 610
    # the Gram of im2col: 45 blocks of the upper triangle over 64 patches
    assert 610 < 45 * 64 / 4


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_rectangles_of_a_lag_do_not_overlap(
    window: tuple[Pair, Pair, Pair, Pair, Pair],
) -> None:
    lags = lags_of(*window)
    summed = [
        (lag.y.lag, lag.x.lag, y, x)
        for lag in lags
        for ys in lag.y.segments
        for xs in lag.x.segments
        for y in ys
        for x in xs
    ]
    assert len(set(summed)) == len(summed) == multiplications(lags)


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_every_rectangle_belongs_to_a_tap(window: tuple[Pair, Pair, Pair, Pair, Pair]) -> None:
    for lag in lags_of(*window):
        for axis in (lag.y, lag.x):
            used = {i for _, _, first, stop in axis.taps for i in range(first, stop)}
            assert used == set(range(len(axis.segments)))


def test_gaps_between_the_ranges_of_a_dilated_kernel_are_not_summed() -> None:
    lags = lags_of((5, 8), (3, 2), (1, 2), (0, 0), (2, 2))
    # y: lag 0 has rows 0, 2, 4, lag 2 has 0, 2, lag 4 has 0; x: lag 0 has 0, 2, 4, 6, lags ±2 three
    assert multiplications(lags) == 3 * (4 + 3) + (2 + 1) * (3 + 4 + 3) == 51


def test_a_3x3_kernel_needs_at_most_nine_rectangles_a_lag() -> None:
    lags = lags_of((8, 8), (3, 3), (1, 1), (1, 1), (1, 1))
    counts = [len(lag.y.segments) * len(lag.x.segments) for lag in lags]
    assert max(counts) == counts[0] == 9


class Largest(TorchDispatchMode):
    """The most elements of a tensor made outside the memory of those that are `known`."""

    def __init__(self, *known: Tensor) -> None:
        super().__init__()
        self.known, self.numel = {t.untyped_storage().data_ptr() for t in known}, 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for t in tree_leaves(made):
            if isinstance(t, Tensor) and t.untyped_storage().data_ptr() not in self.known:
                self.numel = max(self.numel, t.numel())
        return made


@pytest.mark.parametrize("stride", [(1, 1), (2, 2)])
def test_nothing_larger_than_the_image_is_made(stride: Pair) -> None:
    a = image(64, (8, 8), 64)
    window = ((3, 3), stride, (1, 1))
    out = torch.empty(9 * 64, 9 * 64, dtype=a.dtype)
    im2col = 64 * 9 * 64 * 64 // math.prod(stride)
    with Largest(out) as reference:
        patch_gram_reference(a, *window)
    with Largest(out) as ours:
        patch_gram(a, *window, out=out)
    assert ours.numel <= a.numel() < im2col <= reference.numel


def test_rows_of_few_channels_are_not_copied() -> None:
    a = image(256, (8, 8), 16).permute(1, 2, 0, 3).contiguous().permute(2, 0, 1, 3)
    out = torch.empty(9 * 16, 9 * 16, dtype=a.dtype)
    with Largest(out, a) as ours:
        patch_gram(a, (3, 3), padding=(1, 1), out=out)
    most = max(8 * 16 * 16, 9 * 16 * 16)  # products of rows, and of a lag's rectangles
    assert ours.numel <= most < a.numel()


def test_few_numbers_are_taken_in_few_products() -> None:
    """The second convolution of LeNet: rows of patches, until a batch is too large for them."""
    window = ((5, 5), (1, 1), (0, 0), (1, 1))
    by_rows = lags_of((14, 10), (5, 1), *window[1:])
    assert rectangles(lags_of((14, 14), *window)) == 881 and rectangles(by_rows) == 25
    few, many = image(64, (14, 14), 6, torch.float32), image(4096, (14, 14), 6, torch.float32)
    out = torch.empty(150, 150)
    with Largest(out) as largest, Calls() as calls:
        patch_gram(few, (5, 5), out=out)
    assert calls.products == 25
    assert largest.numel == 64 * 14 * 10 * 30  # rows of five taps of six channels
    with Largest(out) as largest:
        patch_gram(many, (5, 5), out=out)
    assert largest.numel == many.numel()


class Calls(TorchDispatchMode):
    """Counts products of matrices."""

    products = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.products += func.overloadpacket in (torch.ops.aten.bmm, torch.ops.aten.baddbmm)
        return func(*args, **(kwargs or {}))
