"""Expressions against PyTorch's functions: smooth, at kinks, at large numbers, at NaN."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from newtriton.compiler.functions import activations
from newtriton.compiler.graph import ops, scalar
from newtriton.compiler.graph.ir import Graph, N, Node
from newtriton.compiler.graph.scalar import Expr, var
from newtriton.runtime.aten.executor import AtenExecutor
from newtriton.runtime.backend import Context

from .oracle import assert_agrees, random

NOT_FINITE = [math.nan, math.inf, -math.inf]

FUNCTIONS: dict[str, tuple[Callable[[Expr], Expr], Callable[[Tensor], Tensor]]] = {
    "relu": (activations.relu, functional.relu),
    "leaky": (lambda x: activations.leaky_relu(x, 0.2), lambda x: functional.leaky_relu(x, 0.2)),
    "threshold": (
        lambda x: activations.threshold(x, 0.5, 2.0),
        lambda x: functional.threshold(x, 0.5, 2.0),
    ),
    "hardtanh": (
        lambda x: activations.hardtanh(x, -0.5, 3.0),
        lambda x: functional.hardtanh(x, -0.5, 3.0),
    ),
    "relu6": (lambda x: activations.hardtanh(x, 0.0, 6.0), functional.relu6),
    "hardsigmoid": (activations.hardsigmoid, lambda x: functional.relu6(x + 3) / 6),
    "hardswish": (activations.hardswish, functional.hardswish),
    "hardshrink": (activations.hardshrink, functional.hardshrink),
    "softshrink": (activations.softshrink, functional.softshrink),
    "tanhshrink": (activations.tanhshrink, functional.tanhshrink),
    "elu": (activations.elu, functional.elu),
    "elu steep": (lambda x: activations.elu(x, 1.7), lambda x: functional.elu(x, 1.7)),
    "selu": (activations.selu, functional.selu),
    "celu": (lambda x: activations.celu(x, 0.5), lambda x: functional.celu(x, 0.5)),
    "silu": (activations.silu, functional.silu),
    "mish": (activations.mish, functional.mish),
    "gelu": (activations.gelu, functional.gelu),
    "gelu tanh": (
        lambda x: activations.gelu(x, "tanh"),
        lambda x: functional.gelu(x, approximate="tanh"),
    ),
    "softplus": (
        lambda x: activations.softplus(x, 2.0, 5.0),
        lambda x: functional.softplus(x, 2.0, 5.0),
    ),
    "log sigmoid": (activations.log_sigmoid, functional.logsigmoid),
    "softsign": (activations.softsign, functional.softsign),
    "absolute": (activations.absolute, torch.abs),
    "clamp": (lambda x: activations.clamp(x, -0.5, 3.0), lambda x: x.clamp(-0.5, 3.0)),
    "clamp below": (lambda x: activations.clamp(x, 0.5), lambda x: x.clamp(min=0.5)),
    "clamp above": (lambda x: activations.clamp(x, None, 0.5), lambda x: x.clamp(max=0.5)),
}
KINKS = [-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0, 6.0]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_and_their_derivatives(name: str) -> None:
    ours, theirs = FUNCTIONS[name]

    def mapped(x: Node, _: object) -> Node:
        return ops.map_(ours(var(0)), x)

    assert_agrees(mapped, theirs, random(40, scale=3.0))
    # At its bounds the derivative of PyTorch's clamp was that of x, and from 2.15 on is 0.
    kinks = [k for k in KINKS if not (name.startswith("clamp") and k in (-0.5, 0.5, 3.0))]
    assert_agrees(mapped, theirs, torch.tensor(kinks, dtype=torch.float64))
    large = torch.tensor([-1e150, -1e4, -800.0, 800.0, 1e4, 1e150], dtype=torch.float64)
    assert_agrees(mapped, theirs, large, derivatives=False)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_nan_comes_through(name: str) -> None:
    ours, _ = FUNCTIONS[name]

    def mapped(x: Node, _: object) -> Node:
        return ops.map_(ours(var(0)), x)

    with pytest.raises(AssertionError, match="relative error nan"):
        assert_agrees(mapped, lambda x: x, torch.full((2,), math.nan).double(), derivatives=False)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(activations.maximum, torch.maximum), (activations.minimum, torch.minimum)],
)
def test_the_larger_of_two_numbers(
    ours: Callable[[Expr, Expr], Expr], theirs: Callable[[Tensor, Tensor], Tensor]
) -> None:
    def mapped(x: Node, y: Node, _: object) -> Node:
        return ops.map_(ours(var(0), var(1)), x, y)

    x, y = random(9).round(), random(9, seed=1).round()
    assert (x == y).any()
    assert_agrees(mapped, theirs, x, y, batched=2)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(activations.maximum, torch.maximum), (activations.minimum, torch.minimum)],
)
def test_the_larger_of_numbers_that_are_not_finite(
    ours: Callable[[Expr, Expr], Expr], theirs: Callable[[Tensor, Tensor], Tensor]
) -> None:
    numbers = torch.tensor([*NOT_FINITE, 1e308, 0.0], dtype=torch.float64)
    x, y = torch.cartesian_prod(numbers, numbers).unbind(1)
    a, b = (ops.input_(name, (N,)) for name in "xy")
    node = ops.map_(ours(var(0), var(1)), a, b)
    context = Context(len(x), torch.float64, torch.device("cpu"))
    found = AtenExecutor(Graph("test", {"z": node}))(context, {a: x, b: y})[node]
    torch.testing.assert_close(found, theirs(x, y), equal_nan=True)


def test_a_slope_may_be_learned() -> None:
    def mapped(x: Node, w: Node, _: object) -> Node:
        slope = ops.broadcast(w, x.shape)
        return ops.map_(activations.leaky_relu(var(0), var(1)), x, slope)

    x = random(6, 3)
    x[0] = 0.0
    assert_agrees(mapped, lambda x, w: torch.where(x > 0, x, w * x), x, random(3, seed=1))


def test_a_formula_of_numbers_is_a_number() -> None:
    assert scalar.evaluate(activations.softplus(scalar.const(0.0)), 1) == pytest.approx(math.log(2))
