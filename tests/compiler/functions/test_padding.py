"""Padding against PyTorch's, in every mode, and cutting by widths below zero."""

from __future__ import annotations

import pytest
from torch import Tensor
from torch.nn import functional

from newtriton.compiler.functions import padding
from newtriton.compiler.graph import ops
from newtriton.compiler.graph.errors import ShapeError
from newtriton.compiler.graph.ir import N, Node

from .oracle import assert_agrees, random

WIDTHS = [(1, 2), (3, 0), (0, 1), (-1, 2), (-2, -1), (0, 0)]


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("height", WIDTHS[:2])
def test_images(mode: str, width: tuple[int, int], height: tuple[int, int]) -> None:
    def ours(x: Node, _: object) -> Node:
        return padding.pad(x, {3: width, 2: height}, mode)

    def theirs(x: Tensor) -> Tensor:
        return functional.pad(x, (*width, *height), mode)

    if min(width) < 0 and mode == "circular":  # PyTorch wraps before it cuts, and refuses some
        return
    assert_agrees(ours, theirs, random(2, 2, 4, 5))


@pytest.mark.parametrize("value", [1.5, -2.0])
def test_a_number(value: float) -> None:
    def ours(x: Node, _: object) -> Node:
        return padding.pad(x, {2: (1, 2), 1: (0, -1)}, "constant", value)

    assert_agrees(ours, lambda x: functional.pad(x, (1, 2, 0, -1), value=value), random(2, 3, 4))


@pytest.mark.parametrize(
    ("mode", "widths", "message"),
    [
        ("reflect", (4, 0), r"reflect padding \(4, 0\) is more than 3, of 4 elements"),
        ("circular", (0, 5), r"circular padding \(0, 5\) is more than 4, of 4 elements"),
        ("constant", (-2, -2), r"padding \(-2, -2\) leaves nothing of 4 elements"),
    ],
)
def test_more_than_there_is_is_refused(mode: str, widths: tuple[int, int], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        padding.pad(ops.input_("x", (N, 4)), {1: widths}, mode)
