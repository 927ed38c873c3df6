"""Convolutions and pools of one and two spatial axes, with every option, against PyTorch's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from newtriton.compiler.functions import padding, windows
from newtriton.compiler.graph.errors import ShapeError
from newtriton.compiler.graph.ir import Node

from .oracle import assert_agrees, channels_first, channels_last, random, weights_last

CONVOLUTIONS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "2-d": ((2, 3, 7, 6), (4, 3, 3, 2), {"stride": (2, 1), "padding": (1, 2)}),
    "2-d grouped": ((2, 4, 7, 6), (6, 2, 3, 3), {"groups": 2, "dilation": (2, 1)}),
    "depthwise": ((2, 4, 6, 5), (4, 1, 3, 3), {"groups": 4, "padding": (1, 1)}),
    "1-d": ((2, 3, 9), (4, 3, 3), {"stride": (2,), "padding": (1,)}),
    "1-d grouped": ((2, 4, 9), (4, 2, 2), {"groups": 2, "dilation": (3,), "padding": (2,)}),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name: str) -> None:
    shape, kernel, given = CONVOLUTIONS[name]
    spatial = len(shape) - 2
    options = {"stride": (1,) * spatial, "padding": (0,) * spatial, "dilation": (1,) * spatial}
    options |= {"groups": 1, **given}
    widths = [(p, p) for p in options["padding"]]

    def ours(x: Node, w: Node, b: Node, _: object) -> Node:
        return channels_first(
            windows.convolution(
                channels_last(x), weights_last(w), b, options["stride"], widths,
                options["dilation"], options["groups"],
            )
        )  # fmt: skip

    conv = functional.conv2d if spatial == 2 else functional.conv1d
    operands = (random(*shape), random(*kernel, seed=1), random(kernel[0], seed=2))
    assert_agrees(ours, lambda *t: conv(*t, **options), *operands)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("kernel", [(2, 3), (4, 5)])
def test_same_padding_of_even_and_odd_kernels(mode: str, kernel: tuple[int, int]) -> None:
    module = torch.nn.Conv2d(2, 3, kernel, padding="same", padding_mode=mode).double()
    widths = windows.same(kernel, (1, 1))

    def ours(x: Node, w: Node, b: Node, _: object) -> Node:
        y = windows.convolution(
            channels_last(x), weights_last(w), b, (1, 1), widths, (1, 1), mode=mode
        )
        return channels_first(y)

    def theirs(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return torch.func.functional_call(module, {"weight": w, "bias": b}, (x,))

    weight, bias = (p.detach() for p in module.parameters())
    assert_agrees(ours, theirs, random(2, 2, 6, 7), weight, bias)


TRANSPOSED: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "2-d": ((2, 4, 3, 4), (4, 3, 3, 2), {"stride": (2, 1), "padding": (1, 0)}),
    "2-d longer": (
        (2, 4, 3, 4),
        (4, 3, 3, 3),
        {"stride": (2, 3), "padding": (1, 1), "output_padding": (1, 2)},
    ),
    "2-d grouped": ((2, 4, 3, 4), (4, 2, 2, 2), {"groups": 2, "stride": (2, 2)}),
    "2-d dilated": (
        (2, 2, 3, 4),
        (2, 3, 3, 2),
        {"dilation": (2, 3), "padding": (1, 0), "output_padding": (1, 2)},
    ),
    "2-d beyond": (
        (2, 2, 3, 4),
        (2, 3, 3, 2),
        {"dilation": (3, 2), "stride": (1, 2), "padding": (1, 0), "output_padding": (2, 1)},
    ),
    "1-d": ((2, 3, 4), (3, 2, 4), {"stride": (2,), "padding": (1,), "output_padding": (1,)}),
}


@pytest.mark.parametrize("name", TRANSPOSED)
def test_transposed_convolutions(name: str) -> None:
    shape, kernel, given = TRANSPOSED[name]
    spatial = len(shape) - 2
    nothing, ones = (0,) * spatial, (1,) * spatial
    options = {"stride": ones, "padding": nothing, "output_padding": nothing, "groups": 1}
    options |= {"dilation": ones, **given}

    def ours(x: Node, w: Node, b: Node, _: object) -> Node:
        y = windows.transposed_convolution(
            channels_last(x), weights_last(w), b, options["stride"], options["padding"],
            options["output_padding"], options["dilation"], options["groups"],
        )  # fmt: skip
        return channels_first(y)

    conv = functional.conv_transpose2d if spatial == 2 else functional.conv_transpose1d
    outputs = kernel[1] * options["groups"]
    operands = (random(*shape), random(*kernel, seed=1), random(outputs, seed=2))
    assert_agrees(ours, lambda *t: conv(*t, **options), *operands)


def test_a_transposed_convolution_that_leaves_nothing_is_refused() -> None:
    def ours(x: Node, w: Node, _: object) -> Node:
        return windows.transposed_convolution(
            channels_last(x), weights_last(w), None, (1, 1), (2, 2), (0, 0), (1, 1)
        )

    with pytest.raises(ShapeError, match="leaves nothing"):
        assert_agrees(ours, lambda x, w: x, random(2, 1, 2, 2), random(1, 1, 2, 2))


POOLS: dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = {
    "2-d": ((2, 3, 7, 8), (3, 2), (2, 2), (1, 0)),
    "2-d overlapping": ((2, 3, 6, 5), (3, 3), (1, 2), (1, 1)),
    "2-d gaps": ((2, 3, 8, 9), (2, 2), (3, 3), (0, 1)),
    "1-d": ((2, 3, 8), (3,), (2,), (1,)),
    "1-d gaps": ((2, 3, 9), (2,), (3,), (0,)),
}


@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("name", POOLS)
def test_max_pools(name: str, dilation: int, ceil: bool) -> None:
    shape, kernel, stride, pads = POOLS[name]

    def ours(x: Node, _: object) -> Node:
        spread = (dilation,) * len(kernel)
        return channels_first(
            windows.max_pool(channels_last(x), kernel, stride, pads, spread, ceil)
        )

    pool = functional.max_pool2d if len(kernel) == 2 else functional.max_pool1d
    assert_agrees(ours, lambda x: pool(x, kernel, stride, pads, dilation, ceil), random(*shape))
    ties = (random(*shape) * 1.5).round()
    assert_agrees(ours, lambda x: pool(x, kernel, stride, pads, dilation, ceil), ties)
    assert_agrees(ours, lambda x: pool(x, kernel, stride, pads, dilation, ceil), -1e300 + 0 * ties)


@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("divisor", [None, 5])
@pytest.mark.parametrize("name", POOLS)
def test_average_pools(name: str, counted: bool, ceil: bool, divisor: int | None) -> None:
    shape, kernel, stride, pads = POOLS[name]

    def ours(x: Node, constant: Any) -> Node:
        y = windows.avg_pool(
            channels_last(x), kernel, stride, pads, constant,
            ceil=ceil, count_include_pad=counted, divisor=divisor,
        )  # fmt: skip
        return channels_first(y)

    def theirs(x: Tensor) -> Tensor:
        if len(kernel) == 2:
            return functional.avg_pool2d(x, kernel, stride, pads, ceil, counted, divisor)
        return functional.avg_pool1d(x, kernel, stride, pads, ceil, counted)

    if len(kernel) == 2 or divisor is None:
        assert_agrees(ours, theirs, random(*shape))


ADAPTIVE = [
    ((2, 3, 6, 8), (3, 2)),
    ((2, 3, 6, 8), (1, 1)),
    ((2, 3, 7, 5), (3, 4)),
    ((2, 3, 7, 5), (None, 2)),
    ((2, 3, 3, 4), (5, 4)),
    ((2, 3, 10), (4,)),
    ((2, 3, 10), (1,)),
]


@pytest.mark.parametrize(("shape", "out"), ADAPTIVE)
def test_adaptive_pools(shape: tuple[int, ...], out: tuple[int | None, ...]) -> None:
    spatial = len(out)

    def mean(x: Node, constant: Any) -> Node:
        return channels_first(windows.adaptive_avg_pool(channels_last(x), out, constant))

    def largest(x: Node, _: object) -> Node:
        return channels_first(windows.adaptive_max_pool(channels_last(x), out))

    means = functional.adaptive_avg_pool2d if spatial == 2 else functional.adaptive_avg_pool1d
    maxima = functional.adaptive_max_pool2d if spatial == 2 else functional.adaptive_max_pool1d
    size = out if spatial == 2 else out[0]
    assert_agrees(mean, lambda x: means(x, size), random(*shape))  # type: ignore[arg-type]
    assert_agrees(largest, lambda x: maxima(x, size), random(*shape))  # type: ignore[arg-type]
    assert_agrees(largest, lambda x: maxima(x, size), random(*shape).round())  # type: ignore[arg-type]


def test_modes_of_padding_are_pytorchs() -> None:
    assert set(padding.MODES) >= {"zeros", "reflect", "replicate", "circular"}
