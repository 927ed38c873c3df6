"""What public bug reports of other libraries taught, of optimizers, data and diagnostics."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import newtriton as nt

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(12) % 3


def model(net: Any = None, loss: Any = None, decay: float = 0.0) -> nt.Model:
    net = nt.Sequential(nt.Linear(5), nt.Tanh(), nt.Linear(3)) if net is None else net
    loss = nt.CrossEntropyLoss() if loss is None else loss
    return nt.compile(net, (4,), loss, backend="aten", device="cpu", weight_decay=decay)


@pytest.mark.parametrize("noise", [None, "wiener"])
def test_batches_of_loss_0_leave_the_radius_of_use(noise: str | None) -> None:
    fitted = model(nt.Linear(2), nt.MSELoss())
    optimizer = nt.FITRE(fitted, noise=noise)
    radius = optimizer.rule.radius
    for _ in range(8):
        optimizer.step(X, fitted(X))
    after = optimizer.rule.radius
    assert after is None or radius is None or after >= radius / 4
    y = X[:, :2]
    losses = [optimizer.step(X, y).loss for _ in range(20)]
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.parametrize("curvature", ["ggn", "hessian"])
def test_a_line_search_takes_no_step_that_raises_the_loss(curvature: str) -> None:
    rule = nt.LevenbergMarquardt(curvature)
    optimizer = nt.SecondOrder(model(), curvature, "truncated-cg", rule, damping=1e-3)
    for _ in range(15):
        report = optimizer.step(X, Y)
        assert not report.accepted or report.new_loss <= report.loss


@pytest.mark.parametrize("make", [nt.FITRE, nt.KFAC, nt.KFRA, nt.NewtonCG])
def test_zero_damping_with_a_dead_layer_is_a_defined_step(make: Callable[..., Any]) -> None:
    dead = model(nt.Sequential(nt.Linear(5), nt.ReLU(), nt.Linear(3)))
    state = dead.state_dict()
    dead.load_state_dict({**state, "0.bias": torch.full((5,), -100.0)})
    optimizer = make(dead, damping=0.0)
    reports = [optimizer.step(X, Y) for _ in range(5)]
    assert torch.isfinite(dead.params).all()
    assert all(np.isfinite(report.loss) for report in reports)


@pytest.mark.parametrize(
    "data",
    [
        lambda: nt.Batches(X, Y, 5),
        lambda: DataLoader(TensorDataset(X, Y), 5, shuffle=True),
        lambda: DataLoader(TensorDataset(X, Y), 5, shuffle=True, generator=torch.Generator()),
    ],
    ids=["Batches", "DataLoader", "with a generator"],
)
def test_newton_cg_judges_its_step_on_the_batches_that_it_was_made_from(
    data: Callable[[], Any],
) -> None:
    trained = model()
    optimizer = nt.NewtonCG(trained, sample=0.5)
    whole = float(trained.objective(X, Y))
    report = optimizer.step(data())
    assert report.loss == pytest.approx(whole, rel=1e-5)
    assert report.accepted
    assert report.new_loss == pytest.approx(float(trained.objective(X, Y)), rel=1e-5)


@pytest.mark.parametrize(("name", "options"), [("Adafactor", {"lr": 0.01}), ("Muon", {"lr": 0.01})])
def test_state_of_parameters_in_their_shapes_is_resumed_bit_for_bit(
    name: str, options: dict[str, Any]
) -> None:
    cls = getattr(torch.optim, name, None)
    if cls is None:
        pytest.skip(f"this PyTorch has no {name}")
    images = torch.randn(6, 2, 6, 6, generator=torch.Generator().manual_seed(1))
    layers = [nt.Conv2d(3, 3, bias=False), nt.ReLU(), nt.Flatten(), nt.Linear(3, bias=False)]
    if name == "Muon":  # it takes matrices alone
        layers = [nt.Flatten(), nt.Linear(5, bias=False), nt.ReLU(), nt.Linear(3, bias=False)]

    def made() -> Any:
        net = nt.Sequential(*copy.deepcopy(layers))
        where = {"backend": "aten", "device": "cpu"}
        fresh = nt.compile(net, (2, 6, 6), nt.CrossEntropyLoss(), **where)
        return nt.TorchOptimizer(fresh, cls, **options)

    first, second = made(), made()
    for _ in range(3):
        first.step(images, Y[:6])
    second.model.load_state_dict(first.model.state_dict())
    second.load_state_dict(first.state_dict())
    for _ in range(3):
        assert first.step(images, Y[:6]).loss == second.step(images, Y[:6]).loss
    assert torch.equal(first.model.params, second.model.params)


@pytest.mark.parametrize("validation", [[], (), {}])
def test_an_empty_validation_set_is_refused_before_the_first_epoch(validation: Any) -> None:
    trained = model()
    before, optimizer = trained.params.clone(), nt.FITRE(trained)
    with pytest.raises(nt.NewtritonError, match="validation"):
        nt.fit(trained, optimizer, [(X, Y)], validation, progress=False)
    assert torch.equal(trained.params, before)


def test_a_validation_set_is_a_pair_of_tensors_too() -> None:
    trained = model()
    history = nt.fit(trained, nt.FITRE(trained), [(X, Y)], (X, Y), progress=False)
    assert history.epochs[0].validation_loss == pytest.approx(float(trained.loss(X, Y)), rel=1e-6)


def test_counts_and_seeds_are_numpys_integers_too() -> None:
    n = np.int64
    trained = model()
    batches = nt.Batches(X, Y, n(5), seed=n(2))
    plain = nt.Batches(X, Y, 5, seed=2)
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(batches, plain, strict=True))
    optimizer = nt.FITRE(trained, every=n(2), burn_in=n(1), seed=n(3), max_factor=n(100))
    history = nt.fit(trained, optimizer, batches, [(X, Y)], n(2), progress=False)
    assert len(history.epochs) == 2
    lin = trained.linearize(X, Y)
    assert nt.spectrum(lin, "ggn", n(1), limit=n(200), basis=n(20), seed=n(1)).products
    assert nt.trace(lin, products=n(6), seed=n(1)).products
    assert nt.diagonal(lin, products=n(3), seed=n(1)).products
    assert nt.density(lin, vectors=n(2), steps=n(3), seed=n(1)).products
    assert len(nt.curves(n(2), n(1)).x) == 2
    nt.GrowingBatches(X, Y, n(1), n(4), steps=n(3), seed=n(1))
    nt.NewtonCG(trained, limit=n(3), seed=n(1)).step(X, Y)


def test_the_name_of_a_class_is_none_and_says_what_is() -> None:
    with pytest.raises(nt.NewtritonError, match=r"cls is 'adam': give a class of torch\.optim"):
        nt.TorchOptimizer(model(), "adam")  # type: ignore[arg-type]


def test_a_spectrum_that_does_not_converge_says_what_to_do() -> None:
    found = nt.spectrum(model().linearize(X, Y), k=1, tolerance=1e-12, limit=1, basis=8)
    assert not found.converged
    assert "dtype=torch.float64" in str(found) and "limit=" in str(found)
