"""Softmax and self-attention against PyTorch's modules, and what they refuse."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import newtriton as nt
from newtriton.compiler.language.network import Layer
from tests.compiler.functions.oracle import random

from .oracle import same_layer

SHAPES = [(3, 4), (2, 3, 4), (2, 3, 4, 5)]


@pytest.mark.parametrize("dim", [1, -1])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_softmax(shape: tuple[int, ...], dim: int, scale: float) -> None:
    smooth = scale == 1.0
    x = random(*shape, scale=scale)
    same_layer(nt.Softmax(dim), nn.Softmax(dim), x, derivatives=smooth)
    same_layer(nt.LogSoftmax(dim), nn.LogSoftmax(dim), x, derivatives=smooth)


class Itself(nn.MultiheadAttention):
    """PyTorch's attention of a sequence to itself."""

    def __init__(self, embed_dim: int, num_heads: int, causal: bool, bias: bool = True) -> None:
        super().__init__(embed_dim, num_heads, bias=bias, batch_first=True)
        self.causal = causal

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1) if self.causal else None
        return super().forward(x, x, x, attn_mask=mask)[0]


@pytest.mark.parametrize(
    ("layer", "causal", "bias"),
    [
        (nt.SelfAttention(2), False, True),
        (nt.SelfAttention(6, 2, causal=True), True, True),
        (nt.SelfAttention(2, bias=False), False, False),
    ],
)
def test_attention_of_a_sequence_to_itself(layer: Layer, causal: bool, bias: bool) -> None:
    same_layer(layer, Itself(6, 2, causal, bias), random(2, 5, 6))


REFUSED: list[tuple[Callable[[], object], str]] = [
    (lambda: nt.Softmax(True), "dim is True: give an integer"),
    (lambda: nt.Softmax(None), "dim is None: give an integer"),  # type: ignore[arg-type]
    (nt.SelfAttention, "SelfAttention() has 0 positional arguments"),
    (lambda: nt.SelfAttention(2, dropout=1.0), "dropout is 1.0: give a number ≥ 0 and < 1"),
    (lambda: nt.SelfAttention(2, causal=1), "causal is 1: give True or False"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_calls_that_mean_nothing_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(nt.NewtritonError, match=re.escape(message)):
        make()


MISFITS: list[tuple[Layer, tuple[int, ...], str]] = [
    (nt.Softmax(0), (3,), "dim is 0: the samples stand on axis 0, and 1 follow"),
    (nt.Softmax(2), (3,), "dim is 2: the samples stand on axis 0, and 1 follow"),
    (nt.SelfAttention(2), (6,), "it needs a T×D sequence"),
    (nt.SelfAttention(4), (3, 6), "6 features do not divide into 4 groups"),
    (nt.SelfAttention(8, 2), (3, 6), "embed_dim is 8, and 6 arrive"),
]


@pytest.mark.parametrize(
    ("layer", "shape", "message"), MISFITS, ids=[message for *_, message in MISFITS]
)
def test_shapes_that_do_not_fit_are_named(
    layer: Layer, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(nt.ShapeError, match=re.escape(message)):
        nt.compile(nt.Sequential(layer), shape, nt.MSELoss())


def test_weights_drop_out_in_training_alone() -> None:
    net = nt.Sequential(nt.SelfAttention(2, dropout=0.5), nt.Flatten(), nt.Linear(2))
    model = nt.compile(net, (4, 6), nt.MSELoss(), dtype=torch.float64)
    x, y = random(3, 4, 6), random(3, 2, seed=1)
    assert torch.equal(model(x), model(x))
    assert not torch.equal(model.linearize(x, y).loss, model.linearize(x, y).loss)
