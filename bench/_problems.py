"""The problems of `bench battery`: public data, each with a network, a loss and a budget.

They are chosen by the kind of trouble they make, and never by how an optimizer of this project does
on them. A share of `HELD_OUT` of each data set is for validation, the same for all seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn import datasets

import newtriton as nt

from ..compiler.language.loss import Loss
from ..compiler.language.network import Layer

HELD_OUT = 0.2
Arrays = tuple[Any, Any]


@dataclass(frozen=True)
class Problem:
    """What is trained, and for how long.

    Attributes:
        trouble: what is hard about it, in a few words.
        data: loads inputs (N, *features), and labels: classes (N,) or targets (N, K).
        net: makes the network.
        loss: its loss.
        batch_size: the samples in a batch; 0 for all of them.
        epochs: how often all samples are passed through.
        scaled: whether inputs get mean 0 and standard deviation 1 in every column.
    """

    trouble: str
    data: Callable[[], Arrays]
    net: Callable[[], Layer]
    loss: Loss
    batch_size: int
    epochs: int
    scaled: bool = True

    def samples(self) -> tuple[nt.Samples, nt.Samples]:
        """Returns the samples for training and those for validation."""
        x, y = map(np.asarray, self.data())
        order = np.random.default_rng(0).permutation(len(x))
        train = order[round(HELD_OUT * len(x)) :]
        if self.scaled:
            deviation = x[train].std(0)
            x = (x - x[train].mean(0)) / np.where(deviation > 0, deviation, 1.0)
        labels = torch.from_numpy(y)
        labels = labels.long() if y.ndim == 1 else labels.float()
        inputs = torch.from_numpy(x).float()
        held_out = order[: len(x) - len(train)]
        return nt.Samples(inputs[train], labels[train]), nt.Samples(
            inputs[held_out], labels[held_out]
        )


# --- networks -----------------------------------------------------------------------------------


def perceptron(
    activation: Callable[[], Layer], *widths: int, init: str = "default"
) -> Callable[[], Layer]:
    """Returns what makes linear layers of these widths with activations between them."""

    def net() -> Layer:
        layers: list[Layer] = []
        for width in widths[:-1]:
            layers += [nt.Linear(width, init=init), activation()]
        return nt.Sequential(*layers, nt.Linear(widths[-1], init=init))

    return net


def cnn(batch_norm: bool = False) -> Layer:
    """Returns two convolutions, each before a pool, and a linear layer."""
    layers: list[Layer] = []
    for width in (8, 16):
        norm = [nt.BatchNorm2d()] if batch_norm else []
        layers += [nt.Conv2d(width, 3, padding=1), *norm, nt.SiLU(), nt.MaxPool2d(2)]
    return nt.Sequential(*layers, nt.Flatten(), nt.Linear(10))


def residual() -> Layer:
    """Returns a perceptron with two residual blocks."""
    blocks = [nt.Residual(nt.Sequential(nt.Linear(48), nt.ReLU(), nt.Linear(48))) for _ in range(2)]
    return nt.Sequential(nt.Linear(48), *blocks, nt.ReLU(), nt.Linear(10))


def bottleneck(*widths: int, init: str = "default") -> Callable[[], Layer]:
    """Returns what makes an autoencoder of sigmoids around a linear code, the narrowest layer."""

    def net() -> Layer:
        layers: list[Layer] = []
        for width in widths[:-1]:
            layers.append(nt.Linear(width, init=init))
            layers += [nt.Sigmoid()] if width > min(widths) else []
        return nt.Sequential(*layers, nt.Linear(widths[-1], init=init))

    return net


# --- data ---------------------------------------------------------------------------------------


def bundled(name: str) -> Callable[[], Arrays]:
    """Returns what loads a set that comes with scikit-learn."""
    return lambda: getattr(datasets, f"load_{name}")(return_X_y=True)


def generated(name: str, *arguments: int, **options: Any) -> Callable[[], Arrays]:
    """Returns what calls a generator of scikit-learn, with seed 0 unless given."""
    options = {"random_state": 0} | options
    return lambda: getattr(datasets, f"make_{name}")(*arguments, **options)


def standard(y: np.ndarray) -> np.ndarray:
    """Returns targets as columns, each with mean 0 and standard deviation 1."""
    columns = y.reshape(len(y), -1)
    return (columns - columns.mean(0)) / columns.std(0)


def regression(data: Callable[[], Arrays], scale: float = 1.0) -> Callable[[], Arrays]:
    """Returns what gives the same data with standardised targets, times a scale."""

    def scaled() -> Arrays:
        x, y = data()
        return x, scale * standard(np.asarray(y))

    return scaled


def images() -> Arrays:
    """Returns digits as images of one channel, scaled as a whole."""
    x, y = bundled("digits")()
    return ((x - x.mean()) / x.std()).reshape(-1, 1, 8, 8), y


def pixels() -> Arrays:
    """Returns digits in [0, 1] as inputs and targets."""
    x, _ = bundled("digits")()
    return x / 16.0, x / 16.0


def drawn_curves() -> Arrays:
    """Returns 1,000 images of CURVES as inputs and targets, in half of their resolution."""
    images = nt.curves(1000).x.reshape(-1, 28, 28)
    x = torch.nn.functional.avg_pool2d(images, 2).flatten(1).numpy()
    return x, x


def flipped() -> Arrays:
    """Returns digits of which every fifth has a label drawn at random."""
    x, y = bundled("digits")()
    generator = np.random.default_rng(0)
    return x, np.where(generator.random(len(y)) < 0.2, generator.integers(0, 10, len(y)), y)


def two_classes() -> Arrays:
    """Returns noisy classes as one column of zeros and ones."""
    x, y = generated("classification", 2000, 50, n_informative=10, n_redundant=5, flip_y=0.3)()
    return x, y.reshape(-1, 1)


def outliers() -> Arrays:
    """Returns a linear relation with noise of ten standard deviations on a target in twenty."""
    x, y = generated("regression", 1500, 20, n_informative=10, noise=10.0)()
    y = y / y.std()
    generator = np.random.default_rng(0)
    far = generator.random(len(y)) < 0.05
    return x, (y + far * generator.normal(0.0, 10.0, len(y))).reshape(-1, 1)


def columns_apart() -> Arrays:
    """Returns Friedman's first problem with input columns scaled by 1e-3 to 1e3."""
    x, y = regression(generated("friedman1", 2000, noise=0.5, random_state=1))()
    return x * np.logspace(-3, 3, 10), y


def checkerboard() -> Arrays:
    """Returns points of a plane and the colours of a 4×4 board under them."""
    x = np.random.default_rng(0).uniform(0.0, 4.0, (2000, 2))
    return x, x.astype(int).sum(1) % 2


CE, MSE, BCE = nt.CrossEntropyLoss(), nt.MSELoss(), nt.BCEWithLogitsLoss()

PROBLEMS = {
    "softmax": Problem(
        "convex, small batch", bundled("digits"), perceptron(nt.ReLU, 10), CE, 32, 8
    ),
    "logistic": Problem(
        "convex, 30 % of labels random", two_classes, perceptron(nt.ReLU, 1), BCE, 32, 8
    ),
    "diabetes": Problem(
        "linear least squares, batch 16",
        regression(bundled("diabetes")),
        perceptron(nt.ReLU, 1), MSE, 16, 15,
    ),
    "cnn-128": Problem("a plain case", images, cnn, CE, 128, 15, False),
    "cnn-16": Problem("small batch", images, cnn, CE, 16, 3, False),
    "cnn-norm": Problem("batch norm", images, lambda: cnn(True), CE, 64, 8, False),
    "residual": Problem("residual blocks", bundled("digits"), residual, CE, 64, 10),
    "deep-sigmoid": Problem(
        "a plateau at the start", bundled("digits"),
        perceptron(nt.Sigmoid, *(64,) * 6, 10), CE, 128, 25,
    ),
    "deep-relu": Problem(
        "eight hidden layers",
        generated("gaussian_quantiles", n_samples=2000, n_features=10, n_classes=4),
        perceptron(nt.ReLU, *(32,) * 8, 4, init="kaiming"), CE, 64, 12,
    ),
    "autoencoder": Problem(
        "bottleneck of 8", pixels, bottleneck(32, 8, 32, 64), BCE, 100, 20, False
    ),
    "curves": Problem(
        "bottleneck of 6", drawn_curves,
        bottleneck(100, 50, 6, 50, 100, 196, init="sparse"), BCE, 100, 25, False,
    ),
    "breast": Problem(
        "batches are learnt to loss 0", bundled("breast_cancer"),
        perceptron(nt.Tanh, 32, 32, 2), CE, 32, 20,
    ),
    "breast-raw": Problem(
        "inputs as they are, 1e-3 to 1e3", bundled("breast_cancer"),
        perceptron(nt.Tanh, 32, 2), CE, 32, 20, False,
    ),
    "minority": Problem(
        "5 % of one class",
        generated("classification", 3000, n_informative=8, weights=[0.95], flip_y=0.01),
        perceptron(nt.ReLU, 32, 32, 2), CE, 64, 8,
    ),
    "label-noise": Problem(
        "20 % of labels random", flipped, perceptron(nt.ReLU, 64, 10), CE, 64, 12
    ),
    "multi-label": Problem(
        "five binary labels", generated("multilabel_classification", 2000),
        perceptron(nt.SiLU, 32, 5), BCE, 32, 8
    ),
    "moons": Problem(
        "classes overlap",
        generated("moons", 1000, noise=0.25),
        perceptron(nt.Tanh, 16, 16, 2), CE, 32, 12,
    ),
    "circles": Problem(
        "two inputs, batch 16",
        generated("circles", 600, noise=0.1, factor=0.6),
        perceptron(nt.SiLU, 16, 16, 2), CE, 16, 12,
    ),
    "checkerboard": Problem(
        "a plateau at the start", checkerboard, perceptron(nt.Tanh, 32, 32, 2), CE, 64, 15
    ),
    "wine": Problem(
        "142 samples", bundled("wine"), perceptron(nt.ReLU, 32, 3), CE, 16, 10
    ),
    "iris": Problem(
        "full batch", bundled("iris"), perceptron(nt.Tanh, 16, 3), CE, 0, 200
    ),
    "linnerud": Problem(
        "16 samples, full batch",
        regression(bundled("linnerud")),
        perceptron(nt.Tanh, 16, 3), MSE, 0, 200,
    ),
    "friedman": Problem(
        "regression with small noise", regression(generated("friedman1", 2000, noise=0.1)),
        perceptron(nt.Tanh, 64, 64, 1), MSE, 64, 12,
    ),
    "friedman-1e5": Problem(
        "targets × 1e5", regression(generated("friedman2", 2000), 1e5),
        perceptron(nt.ReLU, 64, 64, 1), MSE, 64, 12
    ),
    "columns": Problem(
        "inputs' columns scaled 1e-3 to 1e3", columns_apart,
        perceptron(nt.ReLU, 64, 1), MSE, 64, 12, False,
    ),
    "swiss-roll": Problem(
        "regression on a spiral", regression(generated("swiss_roll", 1500, noise=0.1)),
        perceptron(nt.SiLU, 64, 64, 1), MSE, 50, 12
    ),
    "outliers": Problem(
        "5 % of targets far off", outliers, perceptron(nt.ReLU, 32, 1), MSE, 32, 10
    ),
}  # fmt: skip
