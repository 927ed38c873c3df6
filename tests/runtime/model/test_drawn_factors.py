"""Factors of labels that are drawn from the model's own distribution."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import newtriton as nt
from newtriton.compiler.graph.ir import Node
from newtriton.compiler.language.loss import Loss
from newtriton.runtime.model import linearization
from tests.networks import logistic, output_curvature, torch_loss
from tests.tolerances import assert_close, relative_error

from .blocks import compiled, convolutional, losses, perceptron


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def draws(criterion: Loss, outputs: Tensor, count: int) -> Tensor:
    """Random numbers for `count` labels per row of outputs."""
    if isinstance(criterion, (nt.CrossEntropyLoss, nt.MixtureLoss)):
        return torch.rand(count, len(outputs), dtype=outputs.dtype)
    draw = torch.randn if isinstance(criterion, nt.MSELoss) else torch.rand
    return draw(count, *outputs.shape, dtype=outputs.dtype)


def drawn(criterion: Loss, z: Tensor, noise: Tensor) -> Tensor:
    """Labels that the random numbers stand for."""
    if isinstance(criterion, nt.CrossEntropyLoss):
        return torch.searchsorted(z.softmax(1).cumsum(1), noise[:, None], right=True)[:, 0]
    if isinstance(criterion, nt.MSELoss):
        return z + noise * math.sqrt(0.5)
    if isinstance(criterion, nt.MixtureLoss):
        zero = torch.zeros_like(noise, dtype=torch.int64)
        none = [torch_loss(criterion, row[None], zero[:1]) for row in z]
        return (noise >= torch.exp(-torch.stack(none))).long()
    if criterion is logistic:
        return torch.where(noise < (-z).sigmoid(), -1.0, 1.0).to(z.dtype)
    return (noise < z.sigmoid()).to(z.dtype)


def feed_noise(monkeypatch: pytest.MonkeyPatch, noise: Tensor) -> None:
    def given_noise(model: nt.Model, node: Node, batch: int, generator: object) -> Tensor:
        assert len(node.shape) == noise.ndim
        return noise

    monkeypatch.setattr(linearization, "drawn", given_noise)


@losses
def test_factors_of_drawn_labels_tend_to_the_ggn(criterion: Loss) -> None:
    model, _, x, y = compiled(perceptron(), criterion, 4)
    lin = model.linearize(x, y)
    expected = output_curvature(criterion, lin.outputs, y).mean(0)

    def error(samples: int) -> float:
        """Root of the mean square over some seeds of ‖G − B‖/‖B‖."""
        found = []
        for seed in range(16):
            generator = torch.Generator().manual_seed(seed)
            factors = lin.kronecker_factors("kfac", samples, generator)["2"]
            assert isinstance(factors, nt.KroneckerFactors)
            found.append(relative_error(factors.G, expected))
        return math.sqrt(sum(e * e for e in found) / len(found))

    few, many = error(100), error(10_000)
    # M = 40,000 labels; for MSE, g is normal and the error √((K + 1)/M) = 2/√M is expected
    assert many <= 3 / math.sqrt(10_000 * len(x))
    assert 5 < few / many < 20  # 10 = √(10,000/100)


@losses
def test_drawn_labels_repeat_with_the_seed(criterion: Loss) -> None:
    model, _, x, y = compiled(perceptron(), criterion, 16)
    lin = model.linearize(x, y)

    def factor(seed: int | None) -> Tensor:
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        return lin.kronecker_factors("kfac", generator=generator)["2"].G  # type: ignore[union-attr]

    state = torch.get_rng_state()
    first = factor(3)
    assert torch.equal(torch.get_rng_state(), state), "a generator of one's own is the only source"
    assert torch.equal(factor(3), first)
    assert not torch.equal(factor(4), first)
    torch.manual_seed(3)
    assert torch.equal(factor(None), first)
    assert not torch.equal(factor(None), first)


@losses
@pytest.mark.parametrize("training", [False, True])
def test_drawn_labels_are_empirical_factors_of_those_labels(
    criterion: Loss, training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _, x, y = compiled(convolutional(kernel=3, norm=True), criterion, 6)
    lin = model.linearize(x, y, training)
    noise = draws(criterion, lin.outputs, 1)
    feed_noise(monkeypatch, noise)
    ours = lin.kronecker_factors("kfac")
    theirs = model.linearize(x, drawn(criterion, lin.outputs, noise[0]), training)
    assert_same(ours, [theirs.kronecker_factors("empirical")])


@losses
@pytest.mark.parametrize("groups", [1, 2])
def test_several_samples_give_the_mean_of_single_ones_under_batch_norm(
    criterion: Loss, groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = convolutional(kernel=3, padding=1, groups=groups, norm=True)
    model, _, x, y = compiled(pair, criterion, 5)
    lin = model.linearize(x, y)
    noise = draws(criterion, lin.outputs, 3)
    single = []
    for row in noise:
        feed_noise(monkeypatch, row[None])
        single.append(lin.kronecker_factors("kfac"))
    feed_noise(monkeypatch, noise)
    assert_same(lin.kronecker_factors("kfac", samples=3), single)


def assert_same(value: dict[str, Any], parts: list[dict[str, Any]]) -> None:
    """Each factor of `value` is the mean of those of `parts`."""
    for name, factors in value.items():
        if isinstance(factors, nt.DiagonalFactors):
            for key, diagonal in factors.diagonal.items():
                mean = torch.stack([p[name].diagonal[key] for p in parts]).mean(0)
                assert_close(diagonal, mean, key)
        else:
            assert_close(factors.A, parts[0][name].A, f"A of {name}")
            assert_close(factors.G, torch.stack([p[name].G for p in parts]).mean(0), f"G of {name}")
