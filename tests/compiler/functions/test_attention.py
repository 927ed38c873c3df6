"""Softmax and attention against PyTorch's, with masks, at large scores and along any axis."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from newtriton.compiler.functions import attention
from newtriton.compiler.graph import ops
from newtriton.compiler.graph.ir import Node

from .oracle import assert_agrees, random


@pytest.mark.parametrize("scale", [1.0, 1e3])
@pytest.mark.parametrize("axis", [-1, 1, 2])
def test_softmax_along_an_axis(axis: int, scale: float) -> None:
    x, smooth = random(2, 3, 4, 5, scale=scale), scale == 1.0
    for ours, theirs in (
        (attention.softmax, torch.softmax), (attention.log_softmax, torch.log_softmax)
    ):  # fmt: skip
        assert_agrees(
            lambda x, _, f=ours: f(x, axis), lambda x, f=theirs: f(x, axis), x, derivatives=smooth
        )


def test_the_largest_of_equal_scores() -> None:
    x = torch.tensor([[1e4, 1e4, -1e4], [0.0, 0.0, 0.0]], dtype=torch.float64)
    assert_agrees(lambda x, _: attention.softmax(x), lambda x: x.softmax(-1), x)
    assert_agrees(lambda x, _: attention.log_softmax(x), lambda x: x.log_softmax(-1), x)


def heads(own: int = 3, keys: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Queries of 3 heads, and keys and values of `own` heads."""
    return random(2, 3, 4, 6), random(2, own, keys, 6, seed=1), random(2, own, keys, 2, seed=2)


def plain(q: Node, k: Node, v: Node, _: object) -> Node:
    return attention.attention(q, k, v)


def test_attention() -> None:
    assert_agrees(plain, functional.scaled_dot_product_attention, *heads(), batched=3)


def test_attention_of_large_scores_with_a_scale() -> None:
    def theirs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(q, k, v, scale=30.0)

    def ours(q: Node, k: Node, v: Node, _: object) -> Node:
        return attention.attention(q, k, v, scale=30.0)

    assert_agrees(ours, theirs, *heads(), batched=3)


def test_keys_that_several_heads_share() -> None:
    q, k, v = heads(own=1)
    q = torch.cat((q, -q), 1)
    k, v = torch.cat((k, k.flip(2)), 1), torch.cat((v, v.flip(2)), 1)

    def theirs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)

    assert_agrees(plain, theirs, q, k, v, batched=3)


@pytest.mark.parametrize("keys", [4, 5, 3])
def test_causal_attention(keys: int) -> None:
    def ours(q: Node, k: Node, v: Node, constant: Any) -> Node:
        indices = tuple(constant(torch.arange(n).double()) for n in (4, keys))
        return attention.attention(q, k, v, blind=False, order=indices)

    def theirs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    assert_agrees(ours, theirs, *heads(keys=keys), batched=3)


def test_rows_without_a_key_are_zero() -> None:
    mask = random(4, 5, seed=4) > 0.3
    mask[1] = False

    def ours(q: Node, k: Node, v: Node, constant: Any) -> Node:
        return attention.attention(q, k, v, constant(attention.additive(mask)))

    def theirs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    assert_agrees(ours, theirs, *heads(), batched=3)


def test_a_bias_of_scores_has_a_derivative() -> None:
    bias = random(3, 4, 5, seed=5)

    def ours(q: Node, k: Node, v: Node, mask: Node, _: object) -> Node:
        return attention.attention(q, k, v, mask)

    def theirs(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        weights = (q @ k.mT / 6**0.5 + mask).softmax(-1)
        return weights @ v

    assert_agrees(ours, theirs, *heads(), bias, batched=3)


def test_infinite_masks_become_finite() -> None:
    mask = torch.tensor([[0.0, -torch.inf], [1.5, 0.0]])
    assert torch.equal(attention.additive(mask) <= attention.MASKED / 2, mask.isinf())


def test_weights_may_be_thinned() -> None:
    def ours(q: Node, k: Node, v: Node, _: object) -> Node:
        return attention.attention(q, k, v, thinned=lambda w: ops.scale(w, 2.0))

    def theirs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return 2.0 * functional.scaled_dot_product_attention(q, k, v)

    assert_agrees(ours, theirs, *heads(), batched=3)
