"""What the command line can name: data, networks, losses, optimizers and programs."""

import inspect
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ..compiler.graph.errors import NewtritonError
from ..compiler.graph.program import Program
from ..compiler.language.loss import Loss
from ..compiler.language.losses import (
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    MSELoss,
    SigmoidMarginLoss,
)
from ..compiler.language.network import Layer
from ..compiler.layers import models
from ..compiler.programs import Programs
from ..runtime.data.samples import Samples, digits
from ..runtime.diagnostics.alignment import alignment
from ..runtime.diagnostics.errors import layer_errors
from ..runtime.diagnostics.spectra import spectrum
from ..runtime.model.linearization import Linearization
from ..runtime.model.model import Model
from ..runtime.optimizers.first_order import TorchOptimizer
from ..runtime.optimizers.preconditioned import Preconditioned
from ..runtime.optimizers.presets import EACG, FITRE, KFAC, KFLR, KFRA, NewtonCG


@dataclass(frozen=True)
class Entry:
    """Something that can be named, and the options that are for it.

    Attributes:
        make: the function or class that the name stands for.
        keywords: the keyword of `make` under which it takes each option.
    """

    make: Callable[..., Any]
    keywords: Mapping[str, str] = field(default_factory=dict)

    def default(self, option: str) -> object:
        """Returns what the option is unless given."""
        return inspect.signature(self.make).parameters[self.keywords[option]].default


def _sgd(model: Model, lr: float = 0.03) -> TorchOptimizer:
    """Returns SGD with Nesterov's momentum."""
    return TorchOptimizer(model, torch.optim.SGD, lr=lr, momentum=0.9, nesterov=True)


def _adam(model: Model, lr: float = 0.001) -> TorchOptimizer:
    """Returns Adam with PyTorch's defaults."""
    return TorchOptimizer(model, torch.optim.Adam, lr=lr)


def _preconditioned(model: Model, lr: float = 0.05, damping: float = 0.01) -> Preconditioned:
    """Returns SGD with momentum on gradients that K-FAC preconditions."""
    return Preconditioned(model, torch.optim.SGD, lr=lr, momentum=0.9, damping=damping)


def _spectra(lin: Linearization) -> str:
    """Returns both ends of both matrices' spectra as text."""
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

OPTIMIZERS: dict[str, Entry] = {
    "fitre": Entry(FITRE, {"damping": "damping", "radius": "max_radius"}),
    "kfac": Entry(KFAC, {"damping": "damping"}),
    "kflr": Entry(KFLR, {"damping": "damping"}),
    "kfra": Entry(KFRA, {"damping": "damping"}),
    "eacg": Entry(EACG, {"lr": "lr"}),
    "newton-cg": Entry(NewtonCG, {"damping": "damping"}),
    "sgd": Entry(_sgd, {"lr": "lr"}),
    "adam": Entry(_adam, {"lr": "lr"}),
    "preconditioned": Entry(_preconditioned, {"lr": "lr", "damping": "damping"}),
}

PROGRAMS: dict[str, Callable[[Programs], Program]] = {
    "evaluate": lambda programs: programs.evaluate,
    "linearize": lambda programs: programs.linearize,
    "hvp": lambda programs: programs.hvp,
    "ggnvp": lambda programs: programs.ggnvp,
    "quadratic": lambda programs: programs.quadratic(1),
    "kfac": lambda programs: programs.factors("kfac"),
}

DIAGNOSES: dict[str, Entry] = {
    "errors": Entry(layer_errors, {"of": "of"}),
    "alignment": Entry(alignment, {"damping": "damping"}),
    "spectrum": Entry(_spectra),
}


DEFAULT = "(default: %(default)s)"  # for help texts, where argparse fills it in


def takers(table: Mapping[str, Entry], option: str) -> str:
    """Lists what takes an option, each with its default."""
    return ", ".join(
        f"{name} (default: {entry.default(option)})"
        for name, entry in table.items()
        if option in entry.keywords
    )


def keywords_for(options: Namespace, choice: str, table: Mapping[str, Entry]) -> dict[str, Any]:
    """Returns the options given for the entry that `choice` names, by the entry's keywords.

    Raises:
        NewtritonError: an option of another entry is given.
    """
    chosen = getattr(options, choice)
    keywords = table[chosen].keywords
    given: dict[str, Any] = {}
    for option in dict.fromkeys(name for entry in table.values() for name in entry.keywords):
        if (value := getattr(options, option)) is None:
            continue
        if option not in keywords:
            takes = ", ".join(f"--{keyword}" for keyword in keywords) or "no such option"
            raise NewtritonError(f"--{option} is not for {chosen}, which takes {takes}")
        given[keywords[option]] = value
    return given
