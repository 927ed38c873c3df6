"""Scalar expressions: canonical, differentiated exactly, stable far out."""

import math

import mpmath
import pytest
import torch

from newtriton.compiler.functions import activations
from newtriton.compiler.graph import ops, scalar
from newtriton.compiler.graph.ir import N
from newtriton.compiler.graph.scalar import BATCH, const, var
from newtriton.runtime.aten.pointwise import Pointwise
from newtriton.runtime.backend import Context

x, y = var(0), var(1)

FUNCTIONS = {
    "relu": activations.relu(x),
    "leaky": activations.leaky_relu(x, 0.1),
    "sigmoid": scalar.sigmoid(x),
    "tanh": scalar.tanh(x),
    "silu": activations.silu(x),
    "softplus": activations.softplus(x, 2.0),
    "gelu": activations.gelu(x),
    "gelu_tanh": activations.gelu(x, "tanh"),
    "log_sqrt": scalar.log(scalar.sqrt(x * x + 1.0)) / (2.0 + scalar.exp(x)),
}

_MP = {
    "add": lambda *a: mpmath.fsum(a),
    "mul": lambda *a: mpmath.fprod(a),
    "where": lambda c, a, b: a if c > 0 else b,
    "reciprocal": lambda a: 1 / a,
    "sigmoid": lambda a: 1 / (1 + mpmath.exp(-a)),
    "softplus": lambda a: mpmath.log(1 + mpmath.exp(a)),
}


def exact(expr: scalar.Expr, at: mpmath.mpf) -> mpmath.mpf:
    """Returns the value of the expression, computed with 60 digits."""
    if expr.op == "var":
        return at
    if expr.op == "const":
        return mpmath.mpf(expr.value)
    args = [exact(a, at) for a in expr.args]
    return _MP.get(expr.op, getattr(mpmath, expr.op, None))(*args)


def run(expr: scalar.Expr, values: torch.Tensor) -> torch.Tensor:
    """Returns the values of the expression as the executor computes them."""
    node = ops.map_(expr, ops.input_("x", (N,)))
    call = Pointwise([node], [node])
    return call.single(Context(len(values), values.dtype, values.device), values)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
@pytest.mark.parametrize("order", [0, 1, 2])
def test_derivatives_are_exact(name: str, order: int) -> None:
    function = FUNCTIONS[name]
    expr = function
    for _ in range(order):
        expr = scalar.derivative(expr, 0)
    points = torch.tensor([-3.7, -0.6, 0.31, 1.9, 6.2], dtype=torch.float64)
    with mpmath.workdps(60):
        expected = [
            float(mpmath.diff(lambda t: exact(function, t), mpmath.mpf(float(p)), order))
            for p in points
        ]
    torch.testing.assert_close(
        run(expr, points), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-14
    )


@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - {"log_sqrt"}))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_derivatives_are_finite_far_out(name: str, dtype: torch.dtype) -> None:
    points = torch.tensor([-1e4, -100.0, -50.0, 0.0, 50.0, 100.0, 1e4], dtype=dtype)
    expr = FUNCTIONS[name]
    for _ in range(3):
        assert torch.isfinite(run(expr, points)).all(), expr
        expr = scalar.derivative(expr, 0)


def test_softplus_loses_no_digit() -> None:
    points = torch.tensor([-30.0, -5.0, 19.9, 20.1, 35.0, 45.0], dtype=torch.float64)
    with mpmath.workdps(60):
        expected = [float(mpmath.log(1 + mpmath.exp(mpmath.mpf(float(p))))) for p in points]
    torch.testing.assert_close(
        run(scalar.softplus(x), points),
        torch.tensor(expected, dtype=torch.float64),
        rtol=1e-15,
        atol=0,
    )


def test_the_derivative_at_a_kink_is_that_of_the_other_branch() -> None:
    zero = torch.zeros(1, dtype=torch.float64)
    assert run(scalar.derivative(FUNCTIONS["relu"], 0), zero).item() == 0.0
    assert run(scalar.derivative(FUNCTIONS["leaky"], 0), zero).item() == pytest.approx(0.1)


def test_equal_expressions_are_one_object() -> None:
    assert x * y + 1.0 is 1.0 + y * x
    assert scalar.derivative(x * x * y, 0) is 2.0 * x * y
    assert x + x - 2.0 * x is scalar.ZERO
    assert 2.0 * (3.0 * x) is 6.0 * x
    assert scalar.reciprocal(scalar.reciprocal(x)) is x
    assert scalar.exp(0.0) is scalar.ONE


def test_an_indicator_takes_the_product_inside() -> None:
    indicator = scalar.where(x, 1.0, 0.0)
    assert indicator * y is scalar.where(x, y, 0.0)


def test_substitution_keeps_the_canonical_form() -> None:
    assert scalar.substitute(x * y, {1: const(0.0)}) is scalar.ZERO
    assert scalar.substitute(x + y, {0: y, 1: y}) is 2.0 * y


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_numbers_are_rounded_as_pytorch_rounds_tensors(precision: str) -> None:
    generator = torch.Generator().manual_seed(0)
    halfway = 1.0 + torch.arange(8.0) / 2**11, 1.0 + torch.arange(8.0) / 2**8
    random = torch.randn(50, generator=generator)
    values = torch.cat([*halfway, random, -random, torch.tensor([torch.inf, 0.0, 3e38])])
    rounding = scalar.unary(precision, x)
    for value, expected in zip(values, run(rounding, values), strict=True):
        number = scalar.substitute(rounding, {0: const(float(value))})
        assert number is const(float(expected))


def test_the_batch_size_is_a_number() -> None:
    assert scalar.evaluate(scalar.reciprocal(BATCH * 4.0), 8) == 1 / 32
    assert math.isclose(scalar.evaluate(scalar.sqrt(BATCH + 1.0), 8), 3.0)


@pytest.mark.parametrize("otherwise", [0.0, 2.0, y])
def test_a_branch_is_nan_where_its_condition_is(otherwise: scalar.Expr | float) -> None:
    for positive in (x, 1.0, y):
        expr = scalar.where(x, positive, otherwise)
        at = scalar.substitute(expr, {0: const(math.nan), 1: const(3.0)})
        assert positive is otherwise or math.isnan(scalar.evaluate(at, 1))


def test_derivatives_are_pytorchs_at_nan() -> None:
    """Its `threshold_backward` lets them through, `leaky_relu_backward` takes the slope below 0."""
    for name, slope in (("relu", 1.0), ("leaky", 0.1)):
        expr = scalar.derivative(FUNCTIONS[name], 0)
        assert scalar.evaluate(scalar.substitute(expr, {0: const(math.nan)}), 1) == slope
