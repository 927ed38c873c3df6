"""The modules that are measured are captured, and have PyTorch's gradient."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import newtriton as nt
from newtriton.bench._modules import GPT, Attended, Scaled, ViT, resnet20
from newtriton.bench.second_order import attended, features, mean_loss

from ..tolerances import assert_close


def images(size: int) -> Callable[[], tuple[Tensor, Tensor]]:
    return lambda: (torch.randn(3, 3, size, size, dtype=torch.float64), torch.tensor([1, 0, 2]))


def words() -> tuple[Tensor, Tensor]:
    given = torch.randint(0, 7, (3, 6))
    return given[:, :-1].contiguous(), given[:, 1:].contiguous()


@pytest.mark.parametrize(
    ("make", "data"),
    [
        (lambda: resnet20(width=2, classes=3), images(8)),
        (lambda: GPT(layers=1, width=8, positions=5, words=7, heads=2), words),
        (lambda: ViT(layers=1, width=8, size=8, heads=2, classes=3), images(8)),
        (lambda: Attended(8, heads=2), lambda: attended(3, 5, 8)),
        (lambda: Scaled(7), lambda: features(3, 7, 7)),
    ],
    ids=["resnet20", "gpt", "vit", "attention", "scaled"],
)
def test_gradients_are_pytorchs(
    make: Callable[[], nn.Module], data: Callable[[], tuple[Tensor, Tensor]]
) -> None:
    torch.manual_seed(0)
    net, (x, y) = make().double(), data()
    x = x.double() if x.is_floating_point() else x
    theirs = copy.deepcopy(net)
    loss = mean_loss(theirs(x), y)
    slopes = torch.autograd.grad(loss, list(theirs.parameters()))
    model = nt.from_torch(net, x, nt.CrossEntropyLoss())
    lin = model.linearize(x, y)
    assert_close(lin.loss, loss.detach())
    names = [name for name, _ in theirs.named_parameters()]
    assert_close(lin.gradient, model.flatten(dict(zip(names, slopes, strict=True))))
