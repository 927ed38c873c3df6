"""Sizes by position, in PyTorch's order, with the one that may be left out."""

from __future__ import annotations

import numpy as np
import pytest

import newtriton as nt
from newtriton.compiler.graph import ops
from newtriton.compiler.graph.ir import N
from newtriton.compiler.language.described import Described
from newtriton.compiler.layers import arguments

CALLS: list[tuple[Described, str]] = [
    (nt.Linear(np.int64(20), 8), "Linear(20, 8)"),
    (nt.Linear(out_features=8), "Linear(8)"),
    (nt.Linear(8, in_features=20), "Linear(20, 8)"),
    (nt.Conv2d(16, kernel_size=3), "Conv2d(16, 3)"),
    (nt.Conv2d(3, 16, kernel_size=[3, 3]), "Conv2d(3, 16, (3, 3))"),
    (
        nt.Conv2d(16, np.int32(3), padding=np.array([1, 1]).tolist()),
        "Conv2d(16, 3, padding=(1, 1))",
    ),
    (nt.BatchNorm2d(num_features=16), "BatchNorm2d(16)"),
    (nt.GroupNorm(4, num_channels=16), "GroupNorm(4, 16)"),
    (nt.GroupNorm(16, num_groups=4), "GroupNorm(4, 16)"),
    (nt.LayerNorm([8, 8]), "LayerNorm((8, 8))"),
    (nt.SelfAttention(64, num_heads=4), "SelfAttention(64, 4)"),
]


@pytest.mark.parametrize(("layer", "text"), CALLS, ids=[text for _, text in CALLS])
def test_sizes_fill_the_places_that_names_leave(layer: Described, text: str) -> None:
    assert repr(layer) == text


def test_axes_of_images_are_counted_in_pytorchs_order() -> None:
    x = ops.input_("x", (N, 4, 5, 3))
    assert [x.shape[arguments.axis_of("dim", x, axis)] for axis in (1, 2, 3, -1)] == [3, 4, 5, 5]
    assert arguments.torch_order(x).shape == (N, 3, 4, 5)
    assert arguments.graph_order(arguments.torch_order(x)).shape == x.shape


@pytest.mark.parametrize("value", [True, 1.5, None, "3", -1, (1, 2, 3), (1, True)])
def test_what_is_no_size_is_refused(value: object) -> None:
    with pytest.raises(nt.NewtritonError, match=r"width is .*: give an integer ≥ 0 or a pair"):
        arguments.axes(2, 0)("width", value)
