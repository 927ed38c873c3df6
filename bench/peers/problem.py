"""What all sides get: one network, one batch, the same directions; and what a call is."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ..second_order import kronecker_layers
from .networks import network

Named: TypeAlias = Mapping[str, Tensor]  # by parameter, in PyTorch's shapes

OPERATIONS: Mapping[str, str] = {
    "gradient": "the gradient of the mean loss",
    "hvp": "the product of the Hessian H with a vector",
    "ggnvp": "the product of the generalized Gauss–Newton matrix with a vector",
    "form": "the quadratic form vᵀHv",
    "forms": "the three forms uᵀHu, uᵀHv and vᵀHv",
    "kfac": "K-FAC's factors with one drawn label a sample",
    "ekfac": "K-FAC's factors, their eigenvectors, and EKFAC's second moments",
    "inverse": "K-FAC's damped inverse from given factors, and its product with a vector",
    "step": "a step of an optimizer",
}
DAMPING = 0.01


@dataclass
class Problem:
    """A network with a batch and directions, from a seed; each side takes a copy of the network.

    Attributes:
        name: the network's, see `networks.network`.
        net: the module.
        inputs: the whole batch's.
        labels: the whole batch's.
        u: a direction, by parameter.
        v: another one.
        w: v with zeros for the biases: what products with factors are compared on, since some
            sides have a block for weights and one for biases.
        layers: the layers whose factors are compared, by name.
        samples: how many of the batch calls take: all of them but where memory is measured.
    """

    name: str
    net: nn.Module
    inputs: Tensor
    labels: Tensor
    u: Named
    v: Named
    w: Named = field(repr=False)
    layers: Mapping[str, nn.Linear | nn.Conv2d]
    samples: int

    @classmethod
    def of(
        cls,
        name: str,
        batch: int | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Problem:
        """Returns the problem of a network's name, with its own batch size unless one is given."""
        torch.manual_seed(0)
        made = network(name)
        net, (x, y) = made.module().to(device, dtype), made.data(batch or made.batch)
        x = x.to(dtype) if x.is_floating_point() else x
        shapes = {p: t.shape for p, t in net.named_parameters()}
        u, v = (
            {p: 0.01 * torch.randn(shape, dtype=dtype).to(device) for p, shape in shapes.items()}
            for _ in range(2)
        )
        w = {p: torch.zeros_like(t) if p.endswith("bias") else t for p, t in v.items()}
        data = x.to(device), y.to(device)
        return cls(name, net, *data, u, v, w, kronecker_layers(net), len(x))

    @property
    def x(self) -> Tensor:
        """The inputs that calls take."""
        return self.inputs[: self.samples]

    @property
    def y(self) -> Tensor:
        """Their labels."""
        return self.labels[: self.samples]

    def copy(self) -> nn.Module:
        """Returns a copy of the network that a side may train."""
        return copy.deepcopy(self.net)

    @property
    def kronecker(self) -> list[str]:
        """The parameters of the layers whose factors are compared, by name."""
        return [f"{layer}.{p}" for layer, m in self.layers.items() for p, _ in m.named_parameters()]


@dataclass(frozen=True)
class Call:
    """One side's way to do an operation.

    Attributes:
        provider: who does it.
        operation: which, of `OPERATIONS`.
        run: does it; this is timed.
        numbers: what it computes, by parameter or by another name: what sides are compared on. A
            call that draws labels takes the given ones here.
        differs: in what it does something else than ours; "" where it does not.
        comparable: whether its numbers must be ours all the same.
        kinks: whether rounding of another library may move an input of a ReLU across 0, and all
            derivatives behind it with it.
        compiles: whether the first call compiles for the size of the batch.
        peak: returns the most bytes that the call takes, where another process makes it; None where
            this one does.
    """

    provider: str
    operation: str
    run: Callable[[], Any]
    numbers: Callable[[], Named]
    differs: str = ""
    comparable: bool = True
    kinks: bool = False
    compiles: bool = False
    peak: Callable[[], int] | None = None


# A side: yields its calls for the operations that are wanted.
Side: TypeAlias = Callable[[Problem, Collection[str]], Iterator[Call]]


def named(problem: Problem, tensors: Collection[Tensor]) -> dict[str, Tensor]:
    """Returns tensors in the order of the parameters by their names."""
    return dict(zip(problem.v, tensors, strict=True))


def dot(u: Named, v: Named) -> Tensor:
    """Returns the inner product of two vectors."""
    return torch.stack([(u[name] * v[name]).sum() for name in u]).sum()


def relative_error(ours: Named, theirs: Named) -> float:
    """Returns ‖ours − theirs‖/‖theirs‖ over the names that both have, in float64."""
    names = [name for name in theirs if name in ours]
    if not names:
        return float("nan")
    a, b = (torch.cat([x[n].detach().cpu().double().flatten() for n in names])
            for x in (ours, theirs))  # fmt: skip
    return float((a - b).norm() / b.norm())
