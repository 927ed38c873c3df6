"""What the command line can name: data, networks, losses, optimizers and programs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from ..compiler.graph.program import Program
from ..compiler.language import models
from ..compiler.language.loss import Loss
from ..compiler.language.losses import (
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    MSELoss,
    SigmoidMarginLoss,
)
from ..compiler.language.network import Layer
from ..compiler.programs import Programs
from ..runtime.data.samples import Samples, digits
from ..runtime.diagnostics.alignment import alignment
from ..runtime.diagnostics.errors import layer_errors, spectrum
from ..runtime.model.linearization import Linearization
from ..runtime.model.model import Model
from ..runtime.optimizers.first_order import TorchOptimizer
from ..runtime.optimizers.presets import EACG, FITRE, KFAC, KFLR, KFRA, NewtonCG
from ..runtime.optimizers.second_order import SecondOrder


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


def _sgd(model: Model, lr: float = 0.03) -> TorchOptimizer:
    return TorchOptimizer(model, torch.optim.SGD, lr=lr, momentum=0.9, nesterov=True)


def _adam(model: Model, lr: float = 0.001) -> TorchOptimizer:
    return TorchOptimizer(model, torch.optim.Adam, lr=lr)


def _spectra(lin: Linearization) -> str:
    """Both matrices' edges."""
    return "\n\n".join(f"{matrix}\n{spectrum(lin, matrix)}" for matrix in ("hessian", "ggn"))


DATA: dict[str, Callable[[], tuple[Samples, Samples]]] = {"digits": digits}

NETWORKS: dict[str, Callable[[], Layer]] = {
    "cnn": models.small_cnn,
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

PROGRAMS: dict[str, Callable[[Programs], Program]] = {
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
