"""What the command line can name: data, networks, losses, optimizers and programs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

import newtriton as nt

from ..compiler.ir import Graph
from ..compiler.layers import Conv2d, Flatten, Linear, MaxPool2d, Sequential, SiLU
from ..compiler.losses import BCEWithLogitsLoss, CrossEntropyLoss, MSELoss
from ..compiler.network import Criterion, Layer
from ..compiler.programs import Programs
from .data import Samples, digits


@dataclass(frozen=True)
class Method:
    """An optimizer, and the keyword under which it takes each option."""

    make: Callable[..., Any]
    keywords: Mapping[str, str]


def small_cnn() -> Layer:
    """Two convolutions and a linear layer, for images from 4×4 pixels on."""
    return Sequential(
        *(Conv2d(32, 3, padding=1), SiLU(), MaxPool2d(2)),
        *(Conv2d(64, 3, padding=1), SiLU(), MaxPool2d(2)),
        *(Flatten(), Linear(10)),
    )


def _fitre(model: Any, **keywords: float) -> Any:
    return nt.FITRE(model, **keywords)


def _sgd(model: Any, lr: float = 0.03) -> Any:
    return nt.TorchOptimizer(model, torch.optim.SGD, lr=lr, momentum=0.9, nesterov=True)


def _adam(model: Any, lr: float = 0.001) -> Any:
    return nt.TorchOptimizer(model, torch.optim.Adam, lr=lr)


DATA: dict[str, Callable[[], tuple[Samples, Samples]]] = {"digits": digits}

NETWORKS: dict[str, Callable[[], Layer]] = {"cnn": small_cnn}

LOSSES: dict[str, Callable[[], Criterion]] = {
    "ce": CrossEntropyLoss,
    "mse": MSELoss,
    "bce": BCEWithLogitsLoss,
}

OPTIMIZERS: dict[str, Method] = {
    "fitre": Method(_fitre, {"damping": "damping", "radius": "max_radius"}),
    "sgd": Method(_sgd, {"lr": "lr"}),
    "adam": Method(_adam, {"lr": "lr"}),
}

PROGRAMS: dict[str, Callable[[Programs], Graph]] = {
    "evaluate": lambda programs: programs.evaluate,
    "linearize": lambda programs: programs.linearize,
    "hvp": lambda programs: programs.hvp,
    "ggnvp": lambda programs: programs.ggnvp,
    "quadratic": lambda programs: programs.quadratic(1),
    "kfac": lambda programs: programs.factors("kfac"),
}
