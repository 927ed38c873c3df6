"""What the command line can name: data, networks, losses, optimizers and programs."""

import inspect
from argparse import Namespace
from collections.abc import Callable, Mapping
from functools import partial, wraps
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
from ..compiler.programs import MATRICES, Programs
from ..runtime.data.samples import Samples
from ..runtime.data.sets import NAMES, load
from ..runtime.diagnostics.alignment import alignment
from ..runtime.diagnostics.densities import density
from ..runtime.diagnostics.diagonals import diagonal
from ..runtime.diagnostics.errors import layer_errors
from ..runtime.diagnostics.spectra import spectrum
from ..runtime.diagnostics.traces import trace
from ..runtime.model.linearized import Linearized
from ..runtime.optimizers.first_order import TorchOptimizer
from ..runtime.optimizers.preconditioned import Preconditioned
from ..runtime.optimizers.presets import EACG, FITRE, KFAC, KFLR, KFRA, NewtonCG
from ..runtime.optimizers.second_order import SecondOrder
from .keywords import Entry


class OfBoth(dict[str, Any]):
    """What was diagnosed of each matrix, by its name."""

    def __str__(self) -> str:
        """Returns them one after the other."""
        return "\n\n".join(f"{matrix}\n{found}" for matrix, found in self.items())


def _both(diagnosis: Callable[..., object]) -> Callable[[Linearized], OfBoth]:
    """Returns a diagnosis of both matrices, with the keywords that it has of each."""

    @wraps(diagnosis)
    def of_both(lin: Linearized, **keywords: Any) -> OfBoth:
        known = [matrix for matrix in MATRICES if lin.programs.offers(matrix)]
        return OfBoth({matrix: diagnosis(lin, matrix, **keywords) for matrix in known})

    own = inspect.signature(diagnosis)
    parameters = [p for name, p in own.parameters.items() if name != "matrix"]
    setattr(of_both, "__signature__", own.replace(parameters=parameters))  # noqa: B010
    return of_both


DATA: dict[str, Callable[..., tuple[Samples, Samples]]] = {
    name: partial(load, name) for name in NAMES
}

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
    "second-order": Entry(SecondOrder, {"damping": "damping"}),
    "sgd": Entry(
        TorchOptimizer, {"lr": "lr"}, torch.optim.SGD,
        {"lr": 0.03, "momentum": 0.9, "nesterov": True},
    ),
    "adam": Entry(TorchOptimizer, {"lr": "lr"}, torch.optim.Adam),
    "lbfgs": Entry(
        TorchOptimizer, {"lr": "lr"}, torch.optim.LBFGS, {"line_search_fn": "strong_wolfe"}
    ),
    "preconditioned": Entry(
        Preconditioned, {"lr": "lr", "damping": "damping"}, torch.optim.SGD,
        {"lr": 0.05, "momentum": 0.9},
    ),
}  # fmt: skip

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
    "spectrum": Entry(_both(spectrum)),
    "trace": Entry(_both(trace)),
    "diagonal": Entry(_both(diagonal)),
    "density": Entry(_both(density)),
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
