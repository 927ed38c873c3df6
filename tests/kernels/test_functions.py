"""Functions of numbers in the interpreter: against PyTorch, at the edges of their ranges."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from newtriton.kernels import functions

from ..tolerances import relative_error


@triton.jit
def elementwise(x, out, B: tl.constexpr, F: tl.constexpr):
    at = tl.arange(0, B)
    tl.store(out + at, F(tl.load(x + at)))


@triton.jit
def classes(z, u, out, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    r = tl.arange(0, ROWS)[:, None]
    c = tl.arange(0, COLUMNS)[None, :]
    found = functions.draw(tl.load(z + r * COLUMNS + c), tl.load(u + r), c)
    tl.store(out + r, found)


@triton.jit
def total(parts, out, count):
    tl.store(out, functions.add_all(parts, count))


@triton.jit
def rows(parts, out, count, COLUMNS: tl.constexpr):
    c = tl.arange(0, 8)[None, :]
    at = out + tl.zeros((1, 8), tl.int32) + c
    tl.store(at, functions.add_rows(parts, count, COLUMNS, c, c < COLUMNS), mask=c < COLUMNS)


def of(function: Any, x: Tensor) -> Tensor:
    out = torch.empty_like(x)
    elementwise[(1,)](x, out, x.numel(), function)
    return out


WIDE = torch.cat([torch.linspace(-40, 40, 4032), torch.logspace(-12, -1, 64)])


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(functions.tanh, torch.tanh), (functions.softplus, torch.nn.functional.softplus)],
    ids=["tanh", "softplus"],
)
def test_every_value_is_near_in_relative_error(ours: Any, theirs: Any) -> None:
    expected = theirs(WIDE.double())
    kept = expected.abs() > 1e-37  # below, float32 loses digits
    error = (of(ours, WIDE).double() - expected).abs()[kept] / expected.abs()[kept]
    assert float(error.max()) < 4e-6


@triton.jit
def power_of(x):
    return functions.power(x, 2.4)


def test_powers_are_near_in_relative_error_and_end_where_theirs_do() -> None:
    x = torch.logspace(-15, 15, 4096)
    expected = x.double().pow(2.4)
    assert float(((of(power_of, x).double() - expected) / expected).abs().max()) < 1e-7
    edges = torch.tensor([0.0, torch.inf, -1.0, torch.nan])
    assert torch.equal(of(power_of, edges).nan_to_num(7.0), edges.pow(2.4).nan_to_num(7.0))


def test_tf32_is_the_nearest_number_with_ten_bits() -> None:
    x = torch.randn(1024, generator=torch.Generator().manual_seed(0)) * 1e3
    value = of(functions.round_tf32, x)
    mantissa, exponent = torch.frexp(x.double())
    expected = torch.ldexp((mantissa * 2**11).round(), exponent - 11)
    assert torch.equal(value.double(), expected)
    assert torch.equal(of(functions.round_tf32, value), value)


def test_bf16_is_a_number_with_seven_bits_nearby() -> None:
    x = torch.randn(1024, generator=torch.Generator().manual_seed(0)) * 1e3
    value = of(functions.round_bf16, x)
    assert torch.equal(value.bfloat16().float(), value)
    # Within a whole unit: the interpreter cuts off where a GPU takes the nearest.
    assert ((value - x).abs() < x.abs() * 2**-7).all()
    assert torch.equal(of(functions.round_bf16, value), value)


def test_what_is_not_finite_stays_so() -> None:
    x = torch.tensor([float("inf"), -float("inf"), float("nan"), 0.0])
    assert of(functions.round_tf32, x).tolist()[:2] == [float("inf"), -float("inf")]
    assert of(functions.round_tf32, x).isnan().tolist() == [False, False, True, False]


def test_the_first_class_whose_cumulative_probability_exceeds_u_is_drawn() -> None:
    z = torch.tensor([[0.2, 0.3, 0.5, 0.0]]).log().repeat(8, 1)  # the last is no class
    u = torch.tensor([0.0, 0.1, 0.199, 0.201, 0.499, 0.501, 0.9, 1.0])
    out = torch.empty(8, dtype=torch.int32)
    classes[(1,)](z, u, out, 8, 4)
    assert out.tolist() == [0, 0, 0, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("count", [1, 1024, 2500])
def test_sums_are_taken_in_float64(count: int) -> None:
    parts = torch.rand(count, 5, generator=torch.Generator().manual_seed(0)) + 1e3
    out = torch.full((8,), float("nan"))
    rows[(1,)](parts, out, count, 5)
    assert relative_error(out[:5].double(), parts.double().sum(0)) < 1e-7
    assert out[5:].isnan().all()
    total[(1,)](parts, out, count)
    assert relative_error(out[0].double(), parts.flatten()[:count].double().sum()) < 1e-7
