"""The networks that all sides are measured on, and those along which growth is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from .._modules import GPT, ViT, resnet20
from ..second_order import Network, images, sentences, vgg


def perceptron(inputs: int, width: int, depth: int, classes: int) -> nn.Sequential:
    """Returns linear layers of a width with tanh between them, `depth` of them hidden."""
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Linear(width if i else inputs, width), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(width, classes))


def lenet(classes: int = 10) -> nn.Sequential:
    """Returns LeNet-5 (LeCun et al. 1998) with the ReLU and the max pools of later years."""
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, classes)),
    )


def convolutions(width: int, depth: int, classes: int, size: int = 16) -> nn.Sequential:
    """Returns 3×3 convolutions of a width with SiLU, two max pools behind them, and a head."""
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Conv2d(width if i else 3, width, 3, padding=1), nn.SiLU()]
    layers += [nn.MaxPool2d(2), nn.MaxPool2d(2), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(width * (size // 4) ** 2, classes))


def resnet(width: int = 16) -> nn.Sequential:
    """Returns ResNet-20 with batch statistics alone: no side moves running ones in a call."""
    net = resnet20(width)
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.track_running_stats = False
            norm.running_mean = norm.running_var = norm.num_batches_tracked = None
    return net


def rows(batch: int, width: int = 784, classes: int = 10) -> tuple[Tensor, Tensor]:
    """Returns random rows of features, and labels."""
    return torch.randn(batch, width), torch.randint(0, classes, (batch,))


def digits(batch: int) -> tuple[Tensor, Tensor]:
    """Returns random images of MNIST's size, and labels."""
    return torch.randn(batch, 1, 28, 28), torch.randint(0, 10, (batch,))


# Batches are such that a gradient takes two threads of a CPU tens of milliseconds at most.
NETS: Mapping[str, Network] = {
    "mlp": Network(partial(perceptron, 784, 512, 2, 10), rows, 128),
    "lenet": Network(lenet, digits, 64),
    "vgg11": Network(partial(vgg, 11), images, 8),
    "vgg11-narrow": Network(partial(vgg, 11, 4), images, 8),
    "resnet20": Network(resnet, images, 16),
    "gpt": Network(partial(GPT, 4, 128, 64, 1000), sentences, 4),
    "vit": Network(partial(ViT, 4, 128), images, 8),
}

# What is left out, and why.
WITHOUT: Mapping[str, Mapping[str, str]] = {
    "vgg11": dict.fromkeys(
        ("ekfac", "inverse", "step"),
        "factors have up to 4,609 rows, whose inverses and eigenvectors take a CPU from seconds to "
        "minutes a call: the network below has a quarter of the channels",
    ),
    "vgg11-narrow": dict.fromkeys(
        ("gradient", "hvp", "ggnvp", "form", "forms", "kfac"), "the network above has them"
    ),
}

SMALL: Mapping[str, Network] = {
    "small-mlp": Network(partial(perceptron, 64, 64, 2, 10), partial(rows, width=64), 64),
    "small-cnn": Network(partial(convolutions, 8, 2, 10, 16), partial(images, size=16), 32),
}


@dataclass(frozen=True)
class Axis:
    """What grows, while the rest stays as it is.

    Attributes:
        values: the sizes, at equal ratios.
        network: makes the network and the data of a size.
    """

    values: tuple[int, ...]
    network: Callable[[int], Network]


def _mlp(batch: int = 64, depth: int = 4, width: int = 256, classes: int = 10) -> Network:
    net = partial(perceptron, width, width, depth, classes)
    return Network(net, partial(rows, width=width, classes=classes), batch)


def _cnn(batch: int = 16, depth: int = 4, width: int = 16, classes: int = 10) -> Network:
    net = partial(convolutions, width, depth, classes)
    return Network(net, partial(images, size=16, classes=classes), batch)


GROWING: Mapping[str, Mapping[str, Axis]] = {
    "growing-mlp": {
        "batch": Axis((128, 256, 512, 1024), lambda n: _mlp(batch=n)),
        "depth": Axis((4, 8, 16, 32), lambda n: _mlp(depth=n)),
        "width": Axis((256, 512, 1024, 2048), lambda n: _mlp(width=n)),
        "classes": Axis((64, 256, 1024, 4096), lambda n: _mlp(classes=n)),
    },
    "growing-cnn": {
        "batch": Axis((16, 32, 64, 128), lambda n: _cnn(batch=n)),
        "depth": Axis((4, 8, 16, 32), lambda n: _cnn(depth=n)),
        "width": Axis((16, 32, 64, 128), lambda n: _cnn(width=n)),
        "classes": Axis((16, 64, 256, 1024), lambda n: _cnn(classes=n)),
    },
}


def network(name: str) -> Network:
    """Returns a network by its name; "growing-mlp/width/512" is one of those that grow."""
    if name in NETS or name in SMALL:
        return {**NETS, **SMALL}[name]
    kind, axis, value = name.split("/")
    return GROWING[kind][axis].network(int(value))
