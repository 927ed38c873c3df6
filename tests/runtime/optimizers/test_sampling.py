"""Means over batches of any sizes, and samples drawn from them."""

from __future__ import annotations

import pytest
import torch

from newtriton.runtime.optimizers.sampling import Sampled, draw, mean_gradient, mean_objective

from ...tolerances import assert_close
from ..problems import problem


def test_means_are_those_of_all_samples() -> None:
    model, [(x, y)] = problem("cnn")
    data = [(x[:11], y[:11]), (x[11:12], y[11:12]), (x[12:], y[12:])]
    loss, gradient, statistics = mean_gradient(model, data)
    lin = model.linearize(x, y)
    assert loss == pytest.approx(lin.objective, rel=1e-13)
    assert mean_objective(model, data) == pytest.approx(lin.objective, rel=1e-13)
    assert_close(gradient, lin.gradient)
    assert len(statistics) == 3
    assert mean_objective(model, [(x, y)]) == model.objective(x, y), "exactly, of one batch"


def test_a_sample_has_its_share_of_each_batch_and_no_sample_twice() -> None:
    x, y = torch.arange(50.0)[:, None], torch.arange(50)
    data = [(x[:30], y[:30]), (x[30:32], y[30:32]), (x[32:], y[32:])]
    generator = torch.Generator().manual_seed(0)
    xs, ys = draw(data, 0.2, generator)
    assert [int(((ys >= a) & (ys < b)).sum()) for a, b in ((0, 30), (30, 32), (32, 50))] == [
        6,
        1,
        4,
    ]
    assert len(ys.unique()) == len(ys)
    assert torch.equal(xs[:, 0].long(), ys)
    assert not torch.equal(draw(data, 0.2, generator)[1], ys)
    assert torch.equal(draw(data, 1.0, generator)[1].sort().values, y)


def test_a_point_has_the_gradient_of_all_and_the_curvature_of_the_sample() -> None:
    model, [(x, y)] = problem("mlp")
    data = [(x[:10], y[:10]), (x[10:], y[10:])]
    point = Sampled(model, data, 0.5, torch.Generator().manual_seed(4))
    rows = draw(data, 0.5, torch.Generator().manual_seed(4))
    v = torch.randn_like(model.params)
    assert_close(point.gradient, model.linearize(x, y).gradient)
    for curvature in ("hessian", "ggn"):
        expected = model.linearize(*rows).quadratic_forms([v], curvature)
        assert torch.equal(point.quadratic_forms([v], curvature), expected)
