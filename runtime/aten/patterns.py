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


# Derivatives of functions whose value is at hand, as `rewriting` has it.
_OF_VALUES: dict[Expr, Callable[[Tensor, Tensor], Tensor]] = {
    1.0 - var(0) * var(0): aten.tanh_backward,
    (1.0 - var(0)) * var(0): aten.sigmoid_backward,
}


def _table() -> dict[Expr, Callable[..., Tensor]]:
    table: dict[Expr, Callable[..., Tensor]] = {}
    slopes = list(_OF_VALUES.items())
    for expr, (forward, backward) in _ACTIVATIONS.items():
        table[expr] = forward
        slopes.append((scalar.derivative(expr, 0), backward))
    for slope, backward in slopes:
        table[slope * var(1)] = lambda s, ct, f=backward: f(ct, s)
        table[scalar.substitute(slope, {0: var(1)}) * var(0)] = backward
    return table


FUSED_MAPS = _table()
