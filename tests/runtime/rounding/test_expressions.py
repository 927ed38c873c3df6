"""Bounds of expressions hold for float32, also where it takes the other branch."""

import pytest
import torch

from newtriton.compiler.graph import ops, scalar
from newtriton.compiler.graph.ir import N
from newtriton.compiler.graph.scalar import var
from newtriton.runtime.aten.pointwise import Pointwise
from newtriton.runtime.backend import Context
from newtriton.runtime.rounding.bounded import Bounded
from newtriton.runtime.rounding.expressions import bound_expression

UNIT, COUNT = 2e-6, 2000
SINGLE = Context(COUNT, torch.float32, torch.device("cpu"))
DOUBLE = SINGLE._replace(dtype=torch.float64)
X, Y = var(0), var(1)
EXPRESSIONS = {
    "tanh": scalar.tanh(3.0 * X),
    "softplus": scalar.softplus(20.0 * X),
    "sigmoid": scalar.sigmoid(-20.0 * X),
    "exp": scalar.exp(20.0 * X),
    "log": scalar.log(1.0 + X * X),
    "sqrt": scalar.sqrt(X * X),
    "erf": X * (1.0 + scalar.erf(X * 0.7071067811865476)),
    "quotient": X / (Y * Y + 0.1),
    "cancels": (X + Y) * (X + Y) - X * X - 2.0 * X * Y - Y * Y,
    "slope of tanh": 1.0 - scalar.tanh(X) * scalar.tanh(X),
    "kink": scalar.where(X + Y, X * Y, 5.0),
    "batch": X * scalar.BATCH,
    "tf32": scalar.unary("tf32", X * Y),
    "bf16": scalar.unary("bf16", X * Y),
}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_float32_keeps_to_the_bound(name: str):
    expr = EXPRESSIONS[name]
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, COUNT, generator=generator)
    y[:100] = -x[:100] * (1 + 1e-7)  # sums near 0
    node = ops.map_(expr, ops.input_("x", (N,)), ops.input_("y", (N,)))
    found = Pointwise([node], [node]).single(SINGLE, *(x, y)[: len(node.inputs)])
    value, error = bound_expression(expr, [Bounded(x.double()), Bounded(y.double())], DOUBLE, UNIT)
    assert torch.all((found.double() - value).abs() <= error + 1e-35)
    assert float((error / (value.abs() + 1.0)).median()) < 1e-4


def test_the_other_branch_is_allowed_where_the_condition_may_be_0_alone():
    x = torch.tensor([1e-9, 0.5, -1e-9, -0.5], dtype=torch.float64)
    near = Bounded(x, torch.full_like(x, 1e-6))
    kink = scalar.where(X, 3.0, 5.0)
    value, error = bound_expression(kink, [near], DOUBLE, UNIT)
    assert value.tolist() == [3.0, 3.0, 5.0, 5.0]
    assert torch.as_tensor(error).tolist() == [2.0, 0.0, 2.0, 0.0]
    _, exact = bound_expression(kink, [Bounded(x)], DOUBLE, UNIT)
    assert float(torch.as_tensor(exact).max()) == 0.0


def test_a_value_from_memory_is_rounded_exactly():
    x = torch.randn(10, dtype=torch.float64)
    for name in ("tf32", "bf16"):
        assert bound_expression(scalar.unary(name, X), [Bounded(x)], DOUBLE, UNIT).exact


def test_a_quotient_by_what_may_be_0_has_no_bound():
    x = Bounded(torch.tensor([1e-9, 1.0]).double(), torch.tensor([1e-6, 1e-6]).double())
    _, error = bound_expression(scalar.reciprocal(X), [x], DOUBLE, UNIT)
    assert torch.as_tensor(error).isinf().tolist() == [True, False]
