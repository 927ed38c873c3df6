"""First values of parameters, drawn in PyTorch's order: a seed gives what `nn.Sequential` gets."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...compiler.language.network import Parameter

CONNECTIONS = 15  # of an output to inputs, where weights are sparse


def initialise(parameter: Parameter, view: Tensor, generator: torch.Generator) -> None:
    """Fills `view`, the parameter in PyTorch's shape.

    default: U(±1/√fan_in), PyTorch's own; kaiming: N(0, 2/fan_in), biases 0 (He et al. 2015);
    xavier: U(±√(6/(fan_in + fan_out))), biases 0 (Glorot & Bengio 2010);
    sparse: N(0, 1) at 15 random inputs of each output, the rest 0, biases 0 (Martens 2010).
    """
    rule, fan_in, fan_out = parameter.init, parameter.fan_in, parameter.fan_out
    values = torch.empty(
        view.shape, dtype=torch.float64 if view.dtype == torch.float64 else torch.float32
    )
    if rule in ("default", "default bias"):
        bound = 1.0 / math.sqrt(fan_in)
        values.uniform_(-bound, bound, generator=generator)
    elif rule == "kaiming":
        values.normal_(0.0, math.sqrt(2.0 / fan_in), generator=generator)
    elif rule == "xavier":
        bound = math.sqrt(6.0 / (fan_in + fan_out))
        values.uniform_(-bound, bound, generator=generator)
    elif rule == "sparse":
        rows = values.zero_().flatten(1)
        order = torch.rand(rows.shape, generator=generator).argsort(1)[:, :CONNECTIONS]
        rows.scatter_(1, order, torch.randn(order.shape, generator=generator).to(rows.dtype))
    else:
        values.fill_(1.0 if rule == "ones" else 0.0)
    view.copy_(values)
