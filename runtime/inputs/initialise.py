"""First values of parameters, drawn in PyTorch's order: a seed gives what `nn.Sequential` gets."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ...compiler.graph.errors import NewtritonError
from ...compiler.language.initial import (
    INITIAL,
    Constant,
    Distribution,
    Normal,
    NormalRows,
    Sparse,
    Uniform,
)
from ...compiler.language.network import Parameter, Traced
from .layout import Layout

TRACKED = "num_batches_tracked"


def first_values(
    layout: Layout,
    parameters: Mapping[str, Parameter],
    seed: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """Returns all parameters, flat, as their rules of initialisation draw them."""
    params = torch.empty(layout.numel, dtype=dtype, device=device)
    generator = torch.Generator("cpu").manual_seed(seed)
    for name, view in layout.torch_views(params).items():
        initialise(parameters[name], view, generator)
    return params


def first_statistics(traced: Traced, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
    """Returns running statistics before the first step, and how many steps have gone into them."""
    buffers = {
        name: torch.full(r.node.shape, r.start, dtype=dtype, device=device)
        for name, r in traced.running.items()
    }
    for layer in traced.momenta:
        buffers[f"{layer}.{TRACKED}"] = torch.zeros((), dtype=torch.int64, device=device)
    return buffers


def initialise(parameter: Parameter, view: Tensor, generator: torch.Generator) -> None:
    """Fills `view`, the parameter in PyTorch's shape, by the parameter's rule."""
    values = torch.empty(
        view.shape,
        dtype=torch.float64 if view.dtype == torch.float64 else torch.float32,
        device=generator.device,
    )
    first = parameter.init
    if isinstance(first, str):
        first = INITIAL[first](parameter.fan_in, parameter.fan_out)
    _draw(first, values, generator)
    view.copy_(values)


def _draw(distribution: Distribution, values: Tensor, generator: torch.Generator) -> None:
    """Fills `values`, whose first axis is that of the outputs, from the distribution."""
    match distribution:
        case Uniform(bound):
            values.uniform_(-bound, bound, generator=generator)
        case Normal(deviation):
            values.normal_(0.0, deviation, generator=generator)
        case Sparse(connections):
            rows = values.zero_().flatten(1)
            own = {"generator": generator, "device": generator.device}
            order = torch.rand(rows.shape, **own).argsort(1)[:, :connections]
            rows.scatter_(1, order, torch.randn(order.shape, **own).to(rows.dtype))
        case Constant(value):
            if abs(value) > torch.finfo(values.dtype).max:
                raise NewtritonError(
                    f"a parameter starts at {value:g}, too large for {values.dtype}: give a "
                    "smaller init"
                )
            values.fill_(value)
        case NormalRows(zero):
            values.normal_(generator=generator)
            if zero is not None:
                values[zero] = 0.0
