"""Patterns that PyTorch has fused; nowhere else may a layer be recognised.

`FUSED_MAPS` takes a map's scalar expression to one operator. Expressions are interned, so a pattern
is found by identity, and derivatives are looked up in the form that symbolic differentiation gives
them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...compiler.functions import activations
from ...compiler.graph import scalar
from ...compiler.graph.scalar import Expr, var

aten = torch.ops.aten

_ACTIVATIONS: dict[Expr, tuple[Callable[..., Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    activations.silu(var(0)): (aten.silu, aten.silu_backward),
    activations.relu(var(0)): (aten.relu, lambda ct, s: aten.threshold_backward(ct, s, 0)),
    activations.gelu(var(0)): (aten.gelu, aten.gelu_backward),
    activations.gelu(var(0), "tanh"): (
        lambda s: aten.gelu(s, approximate="tanh"),
        lambda ct, s: aten.gelu_backward(ct, s, approximate="tanh"),
    ),
}


def _table() -> dict[Expr, Callable[..., Tensor]]:
    table: dict[Expr, Callable[..., Tensor]] = {}
    for expr, (forward, backward) in _ACTIVATIONS.items():
        table[expr] = forward
        slope = scalar.derivative(expr, 0)
        table[slope * var(1)] = lambda s, ct, f=backward: f(ct, s)
        swapped = scalar.substitute(slope, {0: var(1)})
        table[swapped * var(0)] = lambda ct, s, f=backward: f(ct, s)
    return table


FUSED_MAPS = _table()
