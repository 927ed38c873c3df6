"""Means over batches of any sizes, and the point of a step on a sample of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import newtriton as nt
from newtriton.runtime.optimizers.sampling import Sampled, mean_gradient, mean_objective
from newtriton.runtime.optimizers.subsets import Subsets

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


def test_a_point_has_the_gradient_of_all_and_the_curvature_of_the_sample() -> None:
    model, [(x, y)] = problem("mlp")
    data, lengths = [(x[:10], y[:10]), (x[10:], y[10:])], [10, len(x) - 10]
    point = Sampled(model, data, 0.5, torch.Generator().manual_seed(4))
    *_, (rows, labels, _) = Subsets(data, lengths, 0.5, torch.Generator().manual_seed(4))
    v = torch.randn_like(model.params)
    lin = model.linearize(x, y)
    assert point.objective == pytest.approx(lin.objective, rel=1e-13)
    assert_close(point.gradient, lin.gradient)
    for curvature in ("hessian", "ggn"):
        expected = model.linearize(rows, labels).quadratic_forms([v], curvature)
        assert torch.equal(point.quadratic_forms([v], curvature), expected)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("share", [0.05, 0.5, 1.0])
def test_no_sample_is_passed_through_twice(
    whole: bool, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sample of the curvature is the last subset of function and gradient (section 3.5)."""
    model, [(x, y)] = problem("mlp")
    passed = list[int]()
    for name in ("gradient", "linearize"):
        call = getattr(model, name)

        def counting(x: Tensor, *rest: Any, call: Any = call, **options: Any) -> Any:
            passed.append(len(x))
            return call(x, *rest, **options)

        monkeypatch.setattr(model, name, counting)
    optimizer = nt.NewtonCG(model, sample=share)
    report = optimizer.step(x, y) if whole else optimizer.step([(x[:9], y[:9]), (x[9:], y[9:])])
    assert report.accepted
    assert sum(passed) == len(x) and passed[-1] == max(1, round(share * len(x)))


def test_where_a_batch_mixes_samples_its_gradient_is_that_of_the_batch() -> None:
    net = nt.Sequential(nt.Linear(5), nt.BatchNorm1d(), nt.Tanh(), nt.Linear(3))
    model = nt.compile(net, (4,), nt.CrossEntropyLoss(), dtype=torch.float64)
    x, y = torch.randn(12, 4, dtype=torch.float64), torch.arange(12) % 3
    point = Sampled(model, [(x, y)], 0.5, torch.Generator().manual_seed(0))
    lin = model.linearize(x, y)
    assert point.objective == pytest.approx(lin.objective, rel=1e-13)
    assert_close(point.gradient, lin.gradient)
    assert (len(point.statistics), point.second.batch) == (1, 6)
