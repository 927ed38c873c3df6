"""Affine maps and tables against PyTorch's: features, sequences, padding, first values."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

import newtriton as nt
from newtriton.compiler.language.network import Layer
from tests.compiler.functions.oracle import random

from .oracle import same_layer


@pytest.mark.parametrize("shape", [(4, 5), (3, 2, 5), (2, 3, 2, 2, 5)])
@pytest.mark.parametrize(
    ("layer", "module"),
    [
        (nt.Linear(3), nn.Linear(5, 3)),
        (nt.Linear(5, 3, bias=False), nn.Linear(5, 3, bias=False)),
        (nt.Linear(np.int64(5), out_features=3), nn.Linear(5, 3)),
    ],
)
def test_affine_maps(layer: Layer, module: nn.Module, shape: tuple[int, ...]) -> None:
    same_layer(layer, module, random(*shape))


@pytest.mark.parametrize("padding", [None, 0, -2])
def test_tables(padding: int | None) -> None:
    words = torch.randint(0, 6, (3, 4), generator=torch.Generator().manual_seed(0))
    words[0, 0] = 0
    words[1, 1] = 4
    layer = nt.Embedding(6, 3, padding_idx=padding)
    same_layer(layer, nn.Embedding(6, 3, padding_idx=padding), words, words[:, 0])


def test_a_row_of_padding_starts_at_zero_and_the_others_as_in_pytorch() -> None:
    net = nt.Sequential(nt.Embedding(6, 3, padding_idx=1), nt.Flatten(), nt.Linear(2))
    model = nt.compile(net, nt.InputSpec((4,), "int"), nt.MSELoss(), seed=3)
    torch.manual_seed(3)
    theirs = nn.Embedding(6, 3, padding_idx=1)
    assert torch.equal(model.state_dict()["0.weight"], theirs.weight)


REFUSED: list[tuple[Callable[[], object], str]] = [
    (nt.Linear, "Linear() has 0 positional arguments: give Linear(out_features) or Linear("),
    (lambda: nt.Linear(20, 8, False), "Linear(20, 8, False) has 3 positional arguments"),
    (lambda: nt.Linear(10, False), "out_features is False: give a positive integer"),
    (lambda: nt.Linear(2.5), "out_features is 2.5: give a positive integer"),
    (lambda: nt.Linear(3, bias=None), "bias is None: give True or False"),
    (lambda: nt.Linear(3, out=3), "Linear() has no option 'out'"),
    (lambda: nt.Embedding(10, 4, 0), "Embedding(…, 0) gives options by position"),
    (lambda: nt.Embedding(10, 4, padding_idx=10), "padding_idx is 10: there are 10 rows"),
    (lambda: nt.Embedding(10, 4, padding_idx=-11), "padding_idx is -11: give an integer ≥ -10"),
    (lambda: nt.Embedding(10, True), "embedding_dim is True"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_calls_that_mean_nothing_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(nt.NewtritonError, match=re.escape(message)):
        make()


def test_other_inputs_are_named() -> None:
    message = "Linear(20, 8) at layer 0 got 5 features: in_features is 20, and 5 arrive: give 5, or"
    with pytest.raises(nt.ShapeError, match=re.escape(message)):
        nt.compile(nt.Sequential(nt.Linear(20, 8)), (5,), nt.MSELoss())
    with pytest.raises(nt.ShapeError, match="it needs integers"):
        nt.compile(nt.Sequential(nt.Embedding(20, 8), nt.Flatten()), (5,), nt.MSELoss())
    for layer, shape in ((nt.Linear(2), (5,)), (nt.Conv1d(2, 3), (2, 5))):
        with pytest.raises(nt.ShapeError, match="it needs numbers, and integers arrive"):
            nt.compile(nt.Sequential(layer), nt.InputSpec(shape, "int"), nt.MSELoss())
