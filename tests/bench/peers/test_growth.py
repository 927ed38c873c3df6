"""Exponents are those of least squares, FLOPs those of the graph."""

from __future__ import annotations

import numpy as np
import pytest

import newtriton as nt
from newtriton.bench.peers.growth import counted, exponent, exponents
from newtriton.bench.peers.measuring import Place
from newtriton.bench.peers.problem import Problem


def test_an_exact_power_has_no_error() -> None:
    found = exponent([16, 32, 64, 128], [5.0 * x**1.5 for x in (16, 32, 64, 128)])
    assert (found.power, found.points) == (pytest.approx(1.5), 4)
    assert found.error == pytest.approx(0.0, abs=1e-6)


def test_the_standard_error_is_that_of_the_slope() -> None:
    xs = np.array([1.0, 2.0, 4.0, 8.0, 16.0])
    noise = np.array([0.1, -0.2, 0.05, 0.15, -0.1])
    found = exponent([*xs], [*np.exp(2.0 * np.log(xs) + 1.0 + noise)])
    design = np.stack([np.log(xs), np.ones(5)], 1)
    solution, residual, *_ = np.linalg.lstsq(design, 2.0 * np.log(xs) + 1.0 + noise, rcond=None)
    covariance = residual[0] / 3 * np.linalg.inv(design.T @ design)
    assert found.power == pytest.approx(solution[0])
    assert found.error == pytest.approx(covariance[0, 0] ** 0.5)


@pytest.mark.parametrize(("xs", "ys"), [([2, 2], [1, 2]), ([1, 2], [0, 1]), ([-1, 2], [1, 1])])
def test_there_is_no_exponent_of_one_point_or_of_nothing(xs: list[int], ys: list[int]) -> None:
    with pytest.raises(nt.NewtritonError, match="there is no exponent"):
        exponent(xs, ys)


def test_every_series_has_its_own() -> None:
    rows = [
        {**Place("growing-mlp", axis, x).row("hvp", who, "speed", "ms"), "y_value_50": y}
        for axis, who, power in (("batch", "a", 1), ("batch", "b", 2), ("depth", "a", 3))
        for x in (2, 4, 8)
        for y in (float(x**power),)
    ]
    refused = Place("growing-mlp", "batch", 2).refused("kfac", "a", "no")
    found = exponents([*rows, refused])
    assert {series[1::2]: round(fit.power, 6) for series, fit in found.items()} == {
        ("batch", "a"): 1.0, ("batch", "b"): 2.0, ("depth", "a"): 3.0
    }  # fmt: skip


def test_flops_are_those_of_the_products() -> None:
    problem = Problem.of("small-mlp")
    rows = [*counted(problem, Place("small-mlp", "batch", 64), ["gradient", "hvp", "ekfac"])]
    assert [(row["kernel_operation"], row["metric_name"]) for row in rows] == [
        ("gradient", "flops"), ("gradient", "bytes"), ("hvp", "flops"), ("hvp", "bytes")
    ]  # fmt: skip
    gradient, hvp = (row["y_value_50"] * 1e9 for row in rows[::2])
    # Two operations: forward and weight gradients of all layers, input gradients but of the first.
    weights = (64 * 64, 64 * 64, 64 * 10)
    products = 2 * 64 * (2 * sum(weights) + sum(weights[1:]))
    assert products < gradient < 1.2 * products
    assert hvp > 2 * gradient
