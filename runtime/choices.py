"""What the command line can name: data, networks, losses, optimizers and programs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from ..compiler import models
from ..compiler.ir import Graph
from ..compiler.layers import Conv2d, Flatten, Linear, MaxPool2d, Sequential, SiLU
from ..compiler.loss import Loss
from ..compiler.losses import BCEWithLogitsLoss, CrossEntropyLoss, MSELoss, SigmoidMarginLoss
from ..compiler.network import Layer
from ..compiler.programs import Programs
from .alignment import alignment
from .data import Samples, digits
from .diagnostics import layer_errors, spectrum
from .linearization import Linearization
from .model import Model
from .optimizer import SecondOrder
from .presets import EACG, FITRE, KFAC, KFLR, KFRA, NewtonCG
from .torch_optimizer import TorchOptimizer


@dataclass(frozen=True)
class Method:
    """An optimizer, and the keyword under which it takes each option."""

    make: Callable[..., SecondOrder | TorchOptimizer]
    keywords: Mapping[str, str]


@dataclass(frozen=True)
class Diagnosis:
    """What is said of a linearization, and the options it takes."""

    make: Callable[..., object]
    keywords: tuple[str, ...] = ()


def small_cnn() -> Layer:
    """Two convolutions and a linear layer, for images from 4×4 pixels on."""
    return Sequential(
        *(Conv2d(32, 3, padding=1), SiLU(), MaxPool2d(2)),
        *(Conv2d(64, 3, padding=1), SiLU(), MaxPool2d(2)),
        *(Flatten(), Linear(10)),
    )


def _sgd(model: Model, lr: float = 0.03) -> TorchOptimizer:
    return TorchOptimizer(model, torch.optim.SGD, lr=lr, momentum=0.9, nesterov=True)


def _adam(model: Model, lr: float = 0.001) -> TorchOptimizer:
    return TorchOptimizer(model, torch.optim.Adam, lr=lr)


def _spectra(lin: Linearization) -> str:
    """Both matrices' edges."""
    return "\n\n".join(f"{matrix}\n{spectrum(lin, matrix)}" for matrix in ("hessian", "ggn"))


DATA: dict[str, Callable[[], tuple[Samples, Samples]]] = {"digits": digits}

NETWORKS: dict[str, Callable[[], Layer]] = {
    "cnn": small_cnn,
    "mlp": models.mlp,
    "cnn3": models.cnn3,
    "cnn5": models.cnn5,
    "vgg11": models.vgg11,
    "vgg16": models.vgg16,
    "vgg19": models.vgg19,
    "autoencoder": models.autoencoder,
}

LOSSES: dict[str, Callable[[], Loss]] = {
    "ce": CrossEntropyLoss,
    "mse": MSELoss,
    "bce": BCEWithLogitsLoss,
    "margin": SigmoidMarginLoss,
}

OPTIMIZERS: dict[str, Method] = {
    "fitre": Method(FITRE, {"damping": "damping", "radius": "max_radius"}),
    "kfac": Method(KFAC, {"damping": "damping"}),
    "kflr": Method(KFLR, {"damping": "damping"}),
    "kfra": Method(KFRA, {"damping": "damping"}),
    "eacg": Method(EACG, {"lr": "lr"}),
    "newton-cg": Method(NewtonCG, {"damping": "damping"}),
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

DIAGNOSES: dict[str, Diagnosis] = {
    "errors": Diagnosis(layer_errors, ("of",)),
    "alignment": Diagnosis(alignment, ("damping",)),
    "spectrum": Diagnosis(_spectra),
}
