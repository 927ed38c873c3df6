"""The affine map of the last axis against PyTorch's, and the one product that it is."""

from __future__ import annotations

import pytest
from torch.nn import functional

from newtriton.compiler.functions import linear
from newtriton.compiler.graph import ops
from newtriton.compiler.graph.ir import N, Node

from .oracle import assert_agrees, random


@pytest.mark.parametrize("lead", [(3,), (3, 4), (3, 2, 4)])
def test_any_lead_axes(lead: tuple[int, ...]) -> None:
    def ours(x: Node, w: Node, b: Node, _: object) -> Node:
        return linear.linear(x, w, b)

    assert_agrees(
        ours, functional.linear, random(*lead, 5), random(2, 5, seed=1), random(2, seed=2)
    )


def test_a_sequence_is_one_product_with_more_rows() -> None:
    x, w = ops.input_("x", (N, 4, 5)), ops.input_("w", (2, 5))
    (product,) = linear.linear(x, w).inputs
    assert product.shape == (N * 4, 2)
