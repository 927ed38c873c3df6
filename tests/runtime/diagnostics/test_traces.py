"""Traces against those of dense matrices; estimates are unbiased and as far off as they say."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import newtriton as nt
from newtriton.compiler.graph.errors import NewtritonError

from ..problems import dense, problem


@pytest.mark.parametrize("matrix", ["hessian", "ggn"])
def test_a_small_matrix_has_its_exact_trace(matrix: str) -> None:
    model, [(x, y)] = problem("mlp", weight_decay=0.1)
    lin = model.linearize(x, y)
    expected = dense(lin.hvp if matrix == "hessian" else lin.ggnvp, model.layout.numel).trace()
    found = nt.trace(lin, matrix)
    assert found.value == pytest.approx(float(expected), rel=1e-10)
    assert (found.error, found.products) == (0.0, model.layout.numel)
    assert "exact" in str(found)


@pytest.mark.parametrize("matrix", ["hessian", "ggn"])
def test_estimates_are_unbiased_and_as_far_off_as_they_say(matrix: str) -> None:
    model, [(x, y)] = problem("cnn", weight_decay=0.0)
    lin = model.linearize(x, y)
    exact = nt.trace(lin, matrix, products=model.layout.numel).value
    found = [nt.trace(lin, matrix, products=12, seed=seed) for seed in range(40)]
    scores = torch.tensor([(each.value - exact) / each.error for each in found])
    values = torch.tensor([each.value for each in found])
    assert {each.products for each in found} == {12}
    assert abs(float(values.mean()) - exact) < 3.5 * float(values.std()) / 40**0.5
    assert 0.6 < float(scores.square().mean().sqrt()) < 2.2  # t of 3 degrees of freedom has √3


def test_the_range_that_is_found_costs_no_error() -> None:
    """A Gauss–Newton matrix of low rank: what the sketch finds is all there is."""
    model = nt.compile(nt.Linear(1), (200,), nt.MSELoss(), dtype=torch.float64)
    x = torch.randn(3, 200, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    lin = model.linearize(x, torch.zeros(3, 1, dtype=torch.float64))
    exact = 2.0 * float((x.square().sum(1) + 1.0).mean())
    found = nt.trace(lin, "ggn", products=12)
    assert found.value == pytest.approx(exact, rel=1e-10)
    assert found.error < 1e-10 * exact


def test_estimates_in_float32_on_images() -> None:
    train, _ = nt.digits()
    model = nt.compile(nt.models.small_cnn(), (1, 8, 8), nt.CrossEntropyLoss(), seed=0)
    found = nt.trace(model.linearize(train.x[:32], train.y[:32]), "ggn", products=30)
    assert 0.0 < found.error < 0.5 * found.value
    assert found.products == 30


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda lin: nt.trace(lin, "fisher"), "matrix is 'fisher'"),
        (lambda lin: nt.trace(lin, products=5), "products is 5: give an integer ≥ 6"),
    ],
)
def test_refuses_what_there_cannot_be(
    call: Callable[[nt.Linearization], object], named: str
) -> None:
    model, [(x, y)] = problem("mlp")
    with pytest.raises(NewtritonError, match=named):
        call(model.linearize(x, y))
