"""Interpolation against PyTorch's: up and down, by size and by factor, along one axis and two."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from newtriton.compiler.functions import resampling
from newtriton.compiler.graph.ir import Node

from .oracle import assert_agrees, channels_first, channels_last, random

SIZES = [(8, 10), (5, 3), (4, 5), (1, 1), (9, 15)]
FACTORS = [(2.0, 3.0), (1.5, 0.6), (0.5, 1.7)]


def check(shape: tuple[int, ...], mode: str, **options: Any) -> None:
    two = len(shape) == 4
    name = {"linear": "bilinear" if two else "linear"}.get(mode, mode)
    what = "sizes" if "size" in options else "scales"
    wanted = options["size"] if "size" in options else options["scale_factor"]
    corners = options.get("align_corners")

    def ours(x: Node, constant: Any) -> Node:
        given = {what: wanted, "mode": name, "align_corners": bool(corners)}
        return channels_first(resampling.interpolate(channels_last(x), constant, **given))

    def theirs(x: Tensor) -> Tensor:
        return functional.interpolate(x, mode=name, **options)

    assert_agrees(ours, theirs, random(*shape))


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "area"])
@pytest.mark.parametrize("size", SIZES)
def test_images_to_a_size(size: tuple[int, int], mode: str) -> None:
    check((2, 2, 4, 5), mode, size=size)


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("mode", ["linear", "bicubic"])
@pytest.mark.parametrize("size", SIZES)
def test_images_between_pixels(size: tuple[int, int], mode: str, corners: bool) -> None:
    check((2, 2, 4, 5), mode, size=size, align_corners=corners)


@pytest.mark.parametrize("factor", FACTORS)
def test_images_by_a_factor(factor: tuple[float, float]) -> None:
    check((2, 2, 4, 5), "nearest", scale_factor=factor)
    check((2, 2, 4, 5), "linear", scale_factor=factor, align_corners=False)
    check((2, 2, 4, 5), "linear", scale_factor=factor, align_corners=True)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("size", [3, 7, 12])
def test_sequences(size: int, mode: str) -> None:
    check((2, 3, 6), mode, size=(size,))


def test_a_matrix_is_what_a_function_makes_of_unit_vectors() -> None:
    matrix = resampling.matrix_of(lambda x: functional.avg_pool1d(x, 2), 4)
    expected = [[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]]
    assert torch.equal(matrix, torch.tensor(expected, dtype=torch.float64))


def test_elements_are_repeated_one_after_the_other() -> None:
    def ours(x: Node, _: object) -> Node:
        return resampling.repeated(x, 1, 3)

    assert_agrees(ours, lambda x: x.repeat_interleave(3, 1), random(2, 3, 2))
