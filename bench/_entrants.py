"""The optimizers of `bench battery`: presets at their defaults, and grids of first-order methods.

SOAP and Shampoo are those of pytorch_optimizer, which tests and this measurement alone need.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

import newtriton as nt

from ..compiler.graph.errors import NewtritonError

RATES = (0.001, 0.003, 0.01, 0.03, 0.1)  # of methods whose steps have the size of Adam's


class Steps(Protocol):
    """What takes a step on a batch."""

    def step(self, x: Tensor, y: Tensor) -> Any:
        """Takes a step."""
        ...


Makes: TypeAlias = Callable[[nt.Model], Steps]
Optimizers: TypeAlias = Callable[[list[Parameter]], list[Optimizer]]


@dataclass(frozen=True)
class Entrant:
    """A method, and the settings of which the best counts.

    Attributes:
        title: its name in tables.
        settings: what makes the optimizer, by setting.
        whole: whether a step is made on all samples, once an epoch.
    """

    title: str
    settings: dict[str, Makes]
    whole: bool = False


class FirstOrder:
    """Optimizers with PyTorch's interface over compiled gradients, and nothing else in a step.

    Args:
        model: the model to be trained.
        optimizers: makes them from the parameters.
        flat: whether they see one flat parameter; else each bias and each matrix, a convolution's
            weights as one of O rows.
    """

    def __init__(self, model: nt.Model, optimizers: Optimizers, flat: bool = False) -> None:
        self.model, self.flat = model, flat
        self.parameters = [Parameter(p, requires_grad=False) for p in self.parts(model.params)]
        self.optimizers = optimizers(self.parameters)

    def parts(self, vector: Tensor) -> list[Tensor]:
        """Returns the views of a flat vector that belong to the parameters."""
        if self.flat:
            return [vector]
        return [
            v.flatten(1) if v.dim() > 1 else v for v in self.model.layout.views(vector).values()
        ]

    def step(self, x: Tensor, y: Tensor) -> None:
        """Takes a step on a batch."""
        _, gradient, statistics = self.model.gradient(x, y)
        for parameter, part in zip(self.parameters, self.parts(gradient), strict=True):
            parameter.grad = part
        for optimizer in self.optimizers:
            optimizer.step()
        self.model.update_statistics(statistics)


def sgd(lr: float) -> Makes:
    """Returns what makes SGD with Nesterov's momentum."""
    make = partial(torch.optim.SGD, lr=lr, momentum=0.9, nesterov=True)
    return partial(FirstOrder, optimizers=lambda ps: [make(ps)], flat=True)


def adam(lr: float) -> Makes:
    """Returns what makes Adam with PyTorch's defaults."""
    return partial(FirstOrder, optimizers=lambda ps: [torch.optim.Adam(ps, lr=lr)], flat=True)


def lbfgs(iterations: int, history: int) -> Makes:
    """Returns what makes L-BFGS with a line search for strong Wolfe conditions."""
    return lambda model: nt.TorchOptimizer(
        model,
        torch.optim.LBFGS,
        max_iter=iterations,
        history_size=history,
        line_search_fn="strong_wolfe",
    )


def muon(lr: float) -> Makes:
    """Returns what makes Muon for hidden matrices and Adam for the rest, as its author says.

    The rate's adjustment is the one under which both take Adam's (Liu et al. 2025).
    """

    def optimizers(parameters: list[Parameter]) -> list[Optimizer]:
        hidden = [p for p in parameters if p.dim() == 2][:-1]
        rest = [p for p in parameters if all(p is not h for h in hidden)]
        options: dict[str, Any] = {"weight_decay": 0.0, "adjust_lr_fn": "match_rms_adamw"}
        matrices = [torch.optim.Muon(hidden, lr=lr, **options)] if hidden else []
        return [*matrices, torch.optim.Adam(rest, lr=lr)]

    return partial(FirstOrder, optimizers=optimizers)


def others() -> Any:
    """Returns the package that has SOAP and Shampoo.

    Raises:
        NewtritonError: it is not installed.
    """
    try:
        import pytorch_optimizer  # noqa: PLC0415 (optional)
    except ImportError as error:
        raise NewtritonError(
            "SOAP and Shampoo need pytorch_optimizer: pip install --no-deps -r tests/oracles.txt"
        ) from error
    return pytorch_optimizer


def soap(lr: float) -> Makes:
    """Returns what makes SOAP, without weight decay."""
    return partial(FirstOrder, optimizers=lambda ps: [others().SOAP(ps, lr=lr, weight_decay=0.0)])


def shampoo(lr: float, graft: int) -> Makes:
    """Returns what makes Shampoo with the step lengths of another method (Anil et al. 2020).

    Roots are taken every 10 steps, as often as SOAP's basis: the default of 1,000 is never reached.
    Dimensions are not merged, which would make vectors of small matrices.
    """

    def optimizers(parameters: list[Parameter]) -> list[Optimizer]:
        return [
            others().ScalableShampoo(
                parameters,
                lr=lr,
                moving_average_for_momentum=True,
                start_preconditioning_step=10,
                preconditioning_compute_steps=10,
                shape_interpretation=False,
                graft_type=graft,
            )
        ]

    return partial(FirstOrder, optimizers=optimizers)


def rates(make: Callable[[float], Makes], values: Iterable[float]) -> dict[str, Makes]:
    """Returns the settings of a grid of learning rates."""
    return {f"lr={lr:g}": make(lr) for lr in values}


GRAFTS = {"sgd": (1, (0.1, 0.3, 1.0)), "rmsprop": (3, RATES)}

ENTRANTS = {
    "adam": Entrant("Adam", rates(adam, (*RATES, 0.3))),
    "fitre": Entrant("FITRE", {"defaults": nt.FITRE}),
    "kfac": Entrant("K-FAC", {"defaults": nt.KFAC}),
    "kfra": Entrant("KFRA", {"defaults": nt.KFRA}),
    "kflr": Entrant("KFLR", {"defaults": nt.KFLR}),
    "eacg": Entrant("EA-CG", {"defaults": nt.EACG}),
    "newton-cg": Entrant("Newton-CG", {"defaults": nt.NewtonCG}, whole=True),
    "sgd": Entrant("SGD", rates(sgd, (0.003, 0.01, 0.03, 0.1, 0.3))),
    "l-bfgs": Entrant(
        "L-BFGS",
        {f"iterations={i}, history={h}": lbfgs(i, h) for i, h in product((1, 4), (10, 50))},
        whole=True,
    ),
    "muon": Entrant("Muon", rates(muon, RATES)),
    "soap": Entrant("SOAP", rates(soap, RATES)),
    "shampoo": Entrant(
        "Shampoo",
        {
            f"graft={name}, lr={lr:g}": shampoo(lr, graft)
            for name, (graft, values) in GRAFTS.items()
            for lr in values
        },
    ),
}
