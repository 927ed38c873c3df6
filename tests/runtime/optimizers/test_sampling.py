"""Means over batches of any sizes, and samples drawn from them."""

from __future__ import annotations

import pytest
import torch

import newtriton as nt
from newtriton.runtime.optimizers.sampling import Sampled, draw, mean_gradient, mean_objective

from ...tolerances import assert_close
from ..problems import problem
from ..transfers import counted


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


COUNTED = [
    nt.CrossEntropyLoss(ignore_index=1),
    nt.CrossEntropyLoss([0.1, 3.0, 1.0], label_smoothing=0.1),
]


@pytest.mark.parametrize("loss", COUNTED, ids=repr)
def test_means_are_those_of_all_labels_that_count(loss: nt.Loss) -> None:
    torch.manual_seed(0)
    model = nt.compile(nt.Linear(3), (4,), loss, dtype=torch.float64, weight_decay=0.1)
    x, y = torch.randn(20, 4, dtype=torch.float64), torch.arange(20) % 3
    y[:9] = torch.tensor([1, 1, 1, 1, 1, 1, 0, 2, 1])
    data = [(x[:9], y[:9]), (x[9:12], y[9:12]), (x[12:], y[12:])]
    lin, (h, gradient, _) = model.linearize(x, y), mean_gradient(model, data)
    assert h == pytest.approx(lin.objective, rel=1e-13)
    assert_close(gradient, lin.gradient)
    assert mean_objective(model, data) == pytest.approx(lin.objective, rel=1e-13)
    loss_of_all, accuracy = nt.evaluate(model, data)
    assert loss_of_all == pytest.approx(float(model.loss(x, y)), rel=1e-13)
    assert accuracy == pytest.approx(nt.evaluate(model, [(x, y)])[1])
    counts = model.counts(y)
    assert accuracy == pytest.approx(float((model.classes(x) == y)[counts].double().mean()))


def test_the_mean_of_an_epoch_is_over_what_counts() -> None:
    torch.manual_seed(0)
    loss = nt.CrossEntropyLoss([0.1, 3.0, 1.0])
    model = nt.compile(nt.Linear(3), (4,), loss, dtype=torch.float64)
    x, y = torch.randn(20, 4, dtype=torch.float64), torch.arange(20) % 3
    data = [(x[:3], torch.zeros_like(y[:3])), (x[3:], y[3:])]
    still = nt.TorchOptimizer(model, torch.optim.SGD, lr=0.0)
    history = nt.fit(model, still, data, progress=False)
    assert history.epochs[-1].loss == pytest.approx(nt.evaluate(model, data)[0], rel=1e-13)


def test_what_counts_comes_over_with_the_loss() -> None:
    """A step on one batch reads no more often than where every sample counts."""
    found = []
    for loss in (nt.CrossEntropyLoss(), nt.CrossEntropyLoss([1.0, 2.0, 3.0])):
        model = nt.compile(nt.Linear(3), (4,), loss, dtype=torch.float64)
        optimizers = nt.FITRE(model), nt.TorchOptimizer(model, torch.optim.SGD, lr=0.1)
        x, y = torch.randn(6, 4, dtype=torch.float64), torch.arange(6) % 3
        for optimizer in optimizers:
            optimizer.step(x, y)
            with counted() as transfers:
                optimizer.step(x, y)
            found.append(transfers.reads.total())
    assert found[:2] == found[2:]


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
