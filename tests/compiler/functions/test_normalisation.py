"""Norms against PyTorch's, over channels, groups and trailing axes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from newtriton.compiler.functions import normalisation
from newtriton.compiler.graph.ir import Node

from .oracle import assert_agrees, channels_first, channels_last, random

SHAPES = [(3, 4), (3, 4, 5), (2, 4, 3, 5)]


@pytest.mark.parametrize("scale", [1.0, 1e6, 1e-4])
@pytest.mark.parametrize(("shape", "axes"), [((3, 5), 1), ((2, 3, 5), 1), ((2, 3, 5, 2), 3)])
def test_layer_norm(shape: tuple[int, ...], axes: int, scale: float) -> None:
    def ours(x: Node, w: Node, b: Node, _: object) -> Node:
        return normalisation.layer_norm(x, axes, 1e-5, w, b)

    trailing = shape[-axes:]
    operands = (random(*shape, scale=scale), random(*trailing, seed=1), random(*trailing, seed=2))
    assert_agrees(ours, lambda x, w, b: functional.layer_norm(x, trailing, w, b, 1e-5), *operands)


@pytest.mark.parametrize(("shape", "axes"), [((3, 5), 1), ((2, 3, 5), 1), ((2, 3, 5), 2)])
def test_rms_norm(shape: tuple[int, ...], axes: int) -> None:
    trailing = shape[-axes:]

    def ours(x: Node, w: Node, _: object) -> Node:
        return normalisation.rms_norm(x, axes, 1e-6, w)

    def theirs(x: Tensor, w: Tensor) -> Tensor:
        return functional.rms_norm(x, trailing, w, 1e-6)

    assert_agrees(ours, theirs, random(*shape), random(*trailing, seed=1))


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_group_norm(shape: tuple[int, ...], groups: int) -> None:
    def ours(x: Node, w: Node, b: Node, _: object) -> Node:
        return channels_first(normalisation.group_norm(channels_last(x), groups, 1e-5, w, b))

    # Of one number mean and variance leave nothing but noise.
    if len(shape) == 2 and groups == 4:
        return
    operands = (random(*shape), random(4, seed=1), random(4, seed=2))
    assert_agrees(ours, lambda x, w, b: functional.group_norm(x, groups, w, b, 1e-5), *operands)


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("shape", SHAPES[1:])
def test_instance_norm(shape: tuple[int, ...], affine: bool) -> None:
    def ours(x: Node, *rest: Any) -> Node:
        *parameters, _ = rest
        return channels_first(normalisation.instance_norm(channels_last(x), 1e-5, *parameters))

    def theirs(x: Tensor, *parameters: Tensor) -> Tensor:
        weight, bias = parameters or (None, None)
        return functional.instance_norm(x, weight=weight, bias=bias, eps=1e-5)

    parameters = (random(4, seed=1), random(4, seed=2)) if affine else ()
    assert_agrees(ours, theirs, random(*shape), *parameters)


@pytest.mark.parametrize("shape", SHAPES)
def test_moments_over_the_batch_are_those_of_batch_norm(shape: tuple[int, ...]) -> None:
    def ours(x: Node, w: Node, b: Node, _: object) -> Node:
        x = channels_last(x)
        found = normalisation.moments(x, range(len(shape) - 1))
        y = normalisation.scaled(found.centred, found.variance, found.axes, 1e-5, w, b)
        return channels_first(y)

    def theirs(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return functional.batch_norm(x, None, None, w, b, training=True, eps=1e-5)

    assert_agrees(ours, theirs, random(*shape), random(4, seed=1), random(4, seed=2))


def test_an_unbiased_variance_counts_one_less() -> None:
    def ours(x: Node, _: object) -> Node:
        return normalisation.moments(x, [1]).unbiased

    assert_agrees(ours, lambda x: torch.var(x, 1), random(3, 5))
