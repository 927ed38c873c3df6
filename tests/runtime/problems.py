"""Small compiled problems that optimizers are tried on, in float64."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

import newtriton as nt

LOSSES = {
    "ce": nt.CrossEntropyLoss,
    "mse": nt.MSELoss,
    "bce": nt.BCEWithLogitsLoss,
    "mixture": lambda: nt.MixtureLoss("fisher"),
}
NETS = ("quadratic", "mlp", "cnn")
Data = list[tuple[Tensor, Tensor]]


def problem(name: str, loss: str = "ce", weight_decay: float = 1e-3) -> tuple[nt.Model, Data]:
    """A model and one batch. The quadratic is a linear network; with MSE it is one."""
    shape: tuple[int, ...] = (4,)
    if name == "quadratic":
        net = nt.Linear(3)
    elif name == "mlp":
        net = nt.Sequential(nt.Linear(5), nt.Tanh(), nt.Linear(3))
    else:
        shape = (2, 6, 6)
        net = nt.Sequential(
            *(nt.Conv2d(4, 3, padding=1, bias=False), nt.SiLU(), nt.MaxPool2d(2)),
            *(nt.Conv2d(3, 2, groups=1), nt.Sigmoid(), nt.Flatten(), nt.Linear(3)),
        )
    options = {"dtype": torch.float64, "weight_decay": weight_decay}
    model = nt.compile(net, shape, LOSSES[loss](), **options)  # type: ignore[arg-type]
    return model, [batch(shape, loss)]


def batch(shape: tuple[int, ...], loss: str = "ce", n: int = 24) -> tuple[Tensor, Tensor]:
    """Inputs whose class is written into their mean."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(0, 3, (n,), generator=generator)
    x = torch.randn(n, *shape, generator=generator, dtype=torch.float64)
    x += y.view(-1, *[1] * len(shape)) - 1.0
    if loss == "mixture":
        return x, y.clamp(max=1)
    return x, y if loss == "ce" else nn.functional.one_hot(y, 3).double()


def dense(product, size: int) -> Tensor:
    """The matrix of an operator, by its columns."""
    return torch.stack([product(e) for e in torch.eye(size, dtype=torch.float64)], 1)


def parts_of(x: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The batch in three of unequal size."""
    return [(x[:10], y[:10]), (x[10:17], y[10:17]), (x[17:], y[17:])]


def parts(x: Tensor, y: Tensor, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of several sizes, in turn."""
    for k in range(count):
        rows = torch.arange(k % 3, len(x), 2 + k % 2)
        yield x[rows], y[rows]
