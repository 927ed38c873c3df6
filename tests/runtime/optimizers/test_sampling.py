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


@pytest.mark.parametrize("cuts", [(), (30, 32), (1, 2, 3, 4, 49)])
def test_a_sample_has_its_share_of_all_samples_and_none_twice(cuts: tuple[int, ...]) -> None:
    x, y = torch.arange(50.0)[:, None], torch.arange(50)
    data = [*zip(x.tensor_split(cuts), y.tensor_split(cuts), strict=True)]
    lengths, generator = [len(part) for _, part in data], torch.Generator().manual_seed(0)
    xs, ys = draw(data, 0.2, generator, lengths)
    assert len(ys.unique()) == len(ys) == 10
    assert torch.equal(xs[:, 0].long(), ys)
    assert not torch.equal(draw(data, 0.2, generator, lengths)[1], ys)
    assert torch.equal(draw(data, 1.0, generator, lengths)[1].sort().values, y)
    assert len(draw(data, 1e-3, generator, lengths)[1]) == 1
    times = torch.zeros(50)
    for _ in range(500):
        times[draw(data, 0.2, generator, lengths)[1]] += 1
    assert times.min() > 60 and times.max() < 140, "each sample a hundred times"


def test_a_share_is_of_the_whole_set_and_not_of_batches() -> None:
    x = torch.arange(12800.0)
    data, lengths = [(part, part) for part in x.split(128)], [128] * 100
    _, drawn = draw(data, 0.01, torch.Generator().manual_seed(0), lengths)
    assert len(drawn) == 128
    counts = drawn.div(128).long().bincount(minlength=100)
    assert counts.min() == 0 and counts.max() > 1


def test_a_point_has_the_gradient_of_all_and_the_curvature_of_the_sample() -> None:
    model, [(x, y)] = problem("mlp")
    data = [(x[:10], y[:10]), (x[10:], y[10:])]
    point = Sampled(model, data, 0.5, torch.Generator().manual_seed(4))
    rows = draw(data, 0.5, torch.Generator().manual_seed(4), [10, len(x) - 10])
    v = torch.randn_like(model.params)
    assert_close(point.gradient, model.linearize(x, y).gradient)
    for curvature in ("hessian", "ggn"):
        expected = model.linearize(*rows).quadratic_forms([v], curvature)
        assert torch.equal(point.quadratic_forms([v], curvature), expected)
