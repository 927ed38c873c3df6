"""Networks of a few parameters, which tests put among those that are measured."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from newtriton.bench.peers import networks
from newtriton.bench.peers.networks import convolutions, perceptron, rows
from newtriton.bench.peers.problem import Problem
from newtriton.bench.second_order import Network, images

NETS = {
    "tiny-mlp": Network(partial(perceptron, 5, 4, 1, 3), partial(rows, width=5, classes=3), 6),
    "tiny-cnn": Network(
        partial(convolutions, 2, 1, 3, 8), partial(images, size=8, classes=3), 4
    ),
}  # fmt: skip


def problem(monkeypatch: pytest.MonkeyPatch, name: str, dtype: torch.dtype) -> Problem:
    """A tiny problem."""
    add(monkeypatch)
    return Problem.of(name, dtype=dtype)


def add(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts the tiny networks among the small ones."""
    for name, network in NETS.items():
        monkeypatch.setitem(networks.SMALL, name, network)  # type: ignore[arg-type]
