"""Networks, losses and batches that are taken whole and in pieces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import newtriton as nt
from newtriton.compiler.graph import ops
from newtriton.compiler.graph.ir import Node, Op
from newtriton.compiler.language.network import Layer, Scope

F64 = torch.float64


@dataclass(frozen=True)
class Case:
    """A network with its loss, and a batch of it.

    Attributes:
        net: makes the network.
        shape: of a sample.
        loss: the loss.
        labels: makes labels for so many samples.
        tokens: how many token ids there are, where inputs are ids.
    """

    net: Callable[[], Layer]
    shape: tuple[int, ...]
    loss: nt.Loss
    labels: Callable[[int, torch.Generator], Tensor]
    tokens: int | None = None

    def model(self, **options: Any) -> nt.Model:
        """Returns the model, equal in every call."""
        known = {"backend": "aten", "dtype": F64, "device": "cpu", "weight_decay": 0.03, "seed": 2}
        shape = self.shape if self.tokens is None else nt.InputSpec(self.shape, "int")
        return nt.compile(self.net(), shape, self.loss, **(known | options))

    def batch(self, samples: int, seed: int = 0, dtype: torch.dtype = F64) -> tuple[Any, Tensor]:
        """Returns inputs and labels."""
        generator = torch.Generator().manual_seed(seed)
        shape = (samples, *self.shape)
        if self.tokens is not None:
            x = torch.randint(self.tokens, shape, generator=generator)
        else:
            x = torch.randn(shape, generator=generator, dtype=dtype)
        y = self.labels(samples, generator)
        return x, y.to(dtype) if y.is_floating_point() else y


def classes(count: int, *shape: int) -> Callable[[int, torch.Generator], Tensor]:
    """Labels that are classes."""
    return lambda n, generator: torch.randint(count, (n, *shape), generator=generator)


def ignoring(count: int, *shape: int) -> Callable[[int, torch.Generator], Tensor]:
    """Labels of which the first three samples have none that counts: a piece has none at all."""

    def labels(n: int, generator: torch.Generator) -> Tensor:
        y = torch.randint(count, (n, *shape), generator=generator)
        y[:3] = -100
        y.flatten()[-1] = -100
        return y

    return labels


def numbers(*shape: int) -> Callable[[int, torch.Generator], Tensor]:
    """Labels that are numbers in [0, 1)."""
    return lambda n, generator: torch.rand((n, *shape), generator=generator, dtype=F64)


class Tied:
    """Tokens are embedded, mixed over positions, and scored by the table of the embedding."""

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns logits for each position."""
        table = scope.parameter("table", (7, 4), "xavier", (7, 4))
        h = ops.make(Op.GATHER_ROWS, table, x)
        h = scope.build("norm", nt.LayerNorm(), h)
        h = scope.build("map", nt.Linear(4), h)
        return ops.matmul(h, table, tb=True)


WEIGHTS = [1.0, 2.0, 0.5, 1.5]


def image_net() -> Layer:
    """A CNN with pools that overlap and elements that drop out."""
    return nt.Sequential(
        nt.Conv2d(3, 3, padding=1), nt.Tanh(), nt.Dropout(0.3), nt.MaxPool2d(3, stride=2),
        nt.Flatten(), nt.Linear(5), nt.Softplus(), nt.Linear(4),
    )  # fmt: skip


def mlp(outputs: int = 4) -> Layer:
    """Two layers."""
    return nt.Sequential(nt.Linear(5), nt.Tanh(), nt.Linear(outputs))


CASES = {
    "images": Case(image_net, (2, 6, 6), nt.CrossEntropyLoss(), classes(4)),
    "smoothed": Case(mlp, (3,), nt.CrossEntropyLoss(label_smoothing=0.1), classes(4)),
    "weighted": Case(mlp, (3,), nt.CrossEntropyLoss(weight=WEIGHTS), classes(4)),
    "ignored": Case(mlp, (3,), nt.CrossEntropyLoss(weight=WEIGHTS, ignore_index=-100), ignoring(4)),
    "sequences": Case(mlp, (3, 6), nt.CrossEntropyLoss(), classes(4, 3)),
    "sequences, some ignored": Case(
        mlp, (3, 6), nt.CrossEntropyLoss(ignore_index=-100, label_smoothing=0.2), ignoring(4, 3)
    ),
    "tied": Case(Tied, (5,), nt.CrossEntropyLoss(), classes(7, 5), tokens=7),
    "squares": Case(mlp, (3,), nt.MSELoss(), numbers(4)),
    "squares of classes": Case(mlp, (3,), nt.MSELoss(), classes(4)),
    "logistic": Case(mlp, (3,), nt.BCEWithLogitsLoss(pos_weight=2.0), numbers(4)),
    "margin": Case(mlp, (3,), nt.SigmoidMarginLoss(root="clip"), classes(4)),
}
