"""Windows over one or two spatial axes: convolutions and pools, with PyTorch's options.

Values are (*lead, *spatial, C) and convolution weights (O, *kernel, C/groups). One spatial axis is
an image of height 1. Sizes are tuples with a number per spatial axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor
from torch.nn import functional

from ..graph import ops
from ..graph.errors import ShapeError
from ..graph.ir import Node, Op, show
from ..graph.scalar import var
from .padding import pad
from .resampling import Constant, combine, matrix_of
from .shapes import cut, joined, last

Sizes = Sequence[int]
Widths = Sequence[tuple[int, int]]


def image(x: Node, spatial: int) -> Node:
    """Returns a value with one spatial axis as an image of height 1; an image as it is."""
    if spatial == 2:
        return x
    *lead, length, c = x.shape
    return ops.reshape(x, (*lead, 1, length, c))


def flat(x: Node, spatial: int) -> Node:
    """Returns what `image` made an image of."""
    if spatial == 2:
        return x
    *lead, _, length, c = x.shape
    return ops.reshape(x, (*lead, length, c))


def pair(sizes: Sizes, missing: int) -> tuple[int, int]:
    """Returns a number for height and width, `missing` for a height that is not there."""
    height, width = (missing, *sizes)[-2:]
    return int(height), int(width)


def same(kernel: Sizes, dilation: Sizes) -> Widths:
    """Returns the padding that keeps the size at stride 1; of odd widths the end gets more."""
    reaches = (d * (k - 1) for k, d in zip(kernel, dilation, strict=True))
    return [(r // 2, r - r // 2) for r in reaches]


def convolution(
    x: Node,
    weight: Node,
    bias: Node | None,
    stride: Sizes,
    padding: Widths,
    dilation: Sizes,
    groups: int = 1,
    mode: str = "zeros",
) -> Node:
    """Returns W ⋆ x + b.

    Args:
        x: the value, (*lead, *spatial, C).
        weight: (O, *kernel, C/groups).
        bias: O numbers.
        stride: the distance of two windows.
        padding: how many elements are added before and after each axis.
        dilation: the distance of two taps of a window.
        groups: into how many groups of channels input and output are divided.
        mode: what is added, one of `padding.MODES`.
    """
    spatial = len(stride)
    low = [before for before, _ in padding]
    first = ops.rank(x) - 1 - spatial
    if mode != "zeros" or any(before > after for before, after in padding):
        x, low = pad(x, dict(enumerate(padding, first)), mode), [0] * spatial
    else:
        rest = {axis: (0, b - a) for axis, (a, b) in enumerate(padding, first)}
        x = pad(x, rest)
    operands = [image(x, spatial), image(weight, spatial), *([] if bias is None else [bias])]
    window = {
        "stride": pair(stride, 1),
        "padding": pair(low, 0),
        "dilation": pair(dilation, 1),
        "groups": groups,
    }
    return flat(ops.make(Op.CONV, *operands, **window), spatial)


def transposed_convolution(
    x: Node,
    weight: Node,
    bias: Node | None,
    stride: Sizes,
    padding: Sizes,
    output_padding: Sizes,
    dilation: Sizes,
    groups: int = 1,
) -> Node:
    """Returns Wᵀ ⋆ x + b, the transpose of a convolution in its image.

    Args:
        x: the value, (*lead, *spatial, C).
        weight: (C, *kernel, O/groups).
        bias: O numbers.
        stride: the distance of two windows.
        padding: what the convolution adds, and this takes away.
        output_padding: how many elements more there are at the end of each axis.
        dilation: the distance of two taps of a window.
        groups: into how many groups of channels input and output are divided.

    Raises:
        ShapeError: nothing is left.
    """
    spatial = len(stride)
    first = ops.rank(x) - 1 - spatial
    kernel = weight.shape[1:-1]
    reach = [
        (n - 1) * s + d * (k - 1) + 1
        for n, s, d, k in zip(x.shape[first:-1], stride, dilation, kernel, strict=True)
    ]
    size = [r - 2 * p + o for r, p, o in zip(reach, padding, output_padding, strict=True)]
    if min(size) < 1:
        raise ShapeError(
            f"a transposed {show(kernel)} window with padding {show(padding)} leaves nothing: use "
            "a larger kernel or less padding"
        )
    # The op has less than a stride more than its windows reach; what is beyond them is cut and
    # padded from all that they reach.
    direct = all(o < s for o, s in zip(output_padding, stride, strict=True))
    inside, full = (padding, size) if direct else ([0] * spatial, reach)
    y = flat(
        ops.make(
            Op.CONV_INPUT_GRAD,
            image(x, spatial),
            image(weight, spatial),
            size=pair(full, 1),
            stride=pair(stride, 1),
            padding=pair(inside, 0),
            dilation=pair(dilation, 1),
            groups=groups,
        ),
        spatial,
    )
    if not direct:
        ends = [(-p, o - p) for p, o in zip(padding, output_padding, strict=True)]
        y = pad(y, dict(enumerate(ends, first)))
    return y if bias is None else ops.map_(var(0) + var(1), y, last(bias, y))


def pooled(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil: bool) -> int:
    """Returns how many windows there are; of those that `ceil` adds, none begins behind the end.

    Raises:
        ShapeError: no window fits.
    """
    room = size + 2 * padding - dilation * (kernel - 1) - 1
    count = (-(-room // stride) if ceil else room // stride) + 1
    if ceil and count < 1:
        raise ShapeError(f"a window of {kernel} does not fit {size} elements: use a smaller kernel")
    return count - 1 if ceil and (count - 1) * stride >= size + padding else count


def max_pool(
    x: Node, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, ceil: bool = False
) -> Node:
    """Returns the maxima of windows; the first one in row-major order takes the derivative.

    Args:
        x: the value, (*lead, *spatial, C).
        kernel: the window's size.
        stride: the distance of two windows.
        padding: at most half of the window; it never is the maximum.
        dilation: the distance of two taps of a window.
        ceil: whether windows may go beyond the end.
    """
    spatial = len(kernel)
    first = ops.rank(x) - 1 - spatial
    for axis, (k, s, p, d) in enumerate(zip(kernel, stride, padding, dilation, strict=True), first):
        size = x.shape[axis]
        last_window = (pooled(size, k, s, p, d, ceil) - 1) * s
        x = _continued(x, axis, last_window + d * (k - 1) + 1 - size - 2 * p, d)
    x = image(x, spatial)
    window = {
        "kernel": pair(kernel, 1),
        "stride": pair(stride, 1),
        "padding": pair(padding, 0),
        "dilation": pair(dilation, 1),
    }
    return flat(
        ops.make(Op.GATHER_MAX, x, ops.make(Op.ARGMAX_POOL, x, **window), **window), spatial
    )


def _continued(x: Node, axis: int, more: int, period: int) -> Node:
    """Returns x with its last `period` elements repeated at the end.

    A window that reaches an element there has met its original before, which stays the first
    maximum.
    """
    size = x.shape[axis]
    if more <= 0:
        return x
    start = max(size - period, 0)
    whole, rest = divmod(more, size - start)
    parts = [x, *[cut(x, axis, start, size)] * whole]
    return joined(parts + ([cut(x, axis, start, start + rest)] if rest else []), axis)


def avg_pool(
    x: Node,
    kernel: Sizes,
    stride: Sizes,
    padding: Sizes,
    constant: Constant,
    *,
    ceil: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> Node:
    """Returns the means of windows.

    Args:
        x: the value, (*lead, *spatial, C).
        kernel: the window's size.
        stride: the distance of two windows.
        padding: at most half of the window.
        constant: makes the leaf of a matrix, where there is no op for the windows.
        ceil: whether windows may go beyond the end; what is there does not count.
        count_include_pad: whether padding counts as zeros, or not at all.
        divisor: by what the sums are divided instead of how many elements count.

    Raises:
        ShapeError: no window fits, or there is more padding.
    """
    spatial = len(kernel)
    sizes = x.shape[-1 - spatial : -1]
    windows = list(zip(sizes, kernel, stride, padding, strict=True))
    if any(2 * p > k for _, k, _, p in windows):
        raise ShapeError(f"padding {show(padding)} is more than half of a {show(kernel)} window")
    beyond = ceil and any(
        pooled(n, k, s, p, 1, True) > pooled(n, k, s, p, 1, False) for n, k, s, p in windows
    )
    if not beyond:
        means = ops.make(
            Op.AVG_POOL,
            image(x, spatial),
            kernel=pair(kernel, 1),
            stride=pair(stride, 1),
            padding=pair(padding, 0),
            count_include_pad=count_include_pad or divisor is not None,
        )
        y = flat(means, spatial)
        return y if divisor is None else ops.scale(y, math.prod(kernel) / divisor)
    matrices = [matrix_of(_means(k, s, p, count_include_pad), n) for n, k, s, p in windows]
    if divisor is None:
        return combine(x, matrices, constant)
    sums = [(matrix != 0).to(matrix.dtype) for matrix in matrices]
    return ops.scale(combine(x, sums, constant), 1.0 / divisor)


def _means(kernel: int, stride: int, padding: int, counted: bool) -> Callable[[Tensor], Tensor]:
    """Returns PyTorch's means of windows over one axis, which may go beyond its end."""
    return lambda units: functional.avg_pool1d(units, kernel, stride, padding, True, counted)


def adaptive_avg_pool(x: Node, out: Sequence[int | None], constant: Constant) -> Node:
    """Returns the means of `out` windows along each spatial axis; None leaves an axis as it is."""
    spatial = len(out)
    sizes = x.shape[-1 - spatial : -1]
    wanted = [n if o is None else int(o) for n, o in zip(sizes, out, strict=True)]
    if all(n % o == 0 for n, o in zip(sizes, wanted, strict=True)):
        kernel = [n // o for n, o in zip(sizes, wanted, strict=True)]
        return avg_pool(x, kernel, kernel, [0] * spatial, constant)
    matrices = [
        matrix_of(lambda units, o=o: functional.adaptive_avg_pool1d(units, o), n)
        for n, o in zip(sizes, wanted, strict=True)
    ]
    return combine(x, matrices, constant)


def adaptive_max_pool(x: Node, out: Sequence[int | None]) -> Node:
    """Returns the maxima of `out` windows along each spatial axis; None leaves an axis as it is.

    Where sizes do not divide, windows overlap, and some are shorter: they are laid side by side,
    these with their last element repeated.
    """
    spatial = len(out)
    first = ops.rank(x) - 1 - spatial
    kernel = []
    for axis, wanted in enumerate(out, first):
        size = x.shape[axis]
        bins = [bin_of(i, size, wanted or size) for i in range(wanted or size)]
        width = max(stop - start for start, stop in bins)
        if size % len(bins):
            parts = [cut(x, axis, *ends) for ends in bins]
            parts = [_continued(part, axis, width - part.shape[axis], 1) for part in parts]
            x = joined(parts, axis)
        kernel.append(width)
    return max_pool(x, kernel, kernel, [0] * spatial, [1] * spatial)


def bin_of(i: int, size: int, out: int) -> tuple[int, int]:
    """Returns where window i of an adaptive pool begins and ends."""
    return i * size // out, -(-(i + 1) * size // out)
