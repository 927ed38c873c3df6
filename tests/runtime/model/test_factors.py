"""Kronecker and diagonal factors against dense constructions, curvlinops, and the exact GGN."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
import torch
from backpack import backpack, extend, extensions
from curvlinops import KFACLinearOperator
from hypothesis import given, settings
from torch import nn

import newtriton as nt
from newtriton.compiler.language.loss import Loss
from tests.networks import Pair, pairs, torch_loss
from tests.tolerances import assert_close

from .blocks import (
    WINDOWS,
    compare,
    compiled,
    convolutional,
    losses,
    observe,
    observe_alone,
    perceptron,
)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


# --- empirical factors against dense ones ---------------------------------------------------------


@losses
@pytest.mark.parametrize("bias", [False, True])
def test_linear_factors_are_means_over_per_sample_gradients(criterion: Loss, bias: bool) -> None:
    model, module, x, y = compiled(perceptron(bias), criterion, 5)
    factors = model.linearize(x, y).kronecker_factors("empirical")
    compare(factors, module, observe_alone(module, criterion, x, y))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_convolution_factors_are_those_of_unfold(window: dict[str, Any], bias: bool) -> None:
    criterion = nt.CrossEntropyLoss()
    model, module, x, y = compiled(convolutional(**window, bias=bias), criterion, 4)
    factors = model.linearize(x, y).kronecker_factors("empirical")
    compare(factors, module, observe_alone(module, criterion, x, y))


@losses
def test_affine_batch_norm_has_the_diagonal_of_squared_per_sample_gradients(
    criterion: Loss,
) -> None:
    model, module, x, y = compiled(convolutional(kernel=3, norm=True), criterion, 5)
    lin = model.linearize(x, y, training=False)
    factors = lin.kronecker_factors("empirical")
    compare(factors, module.eval(), observe_alone(module, criterion, x, y))
    norm = factors["1"]
    assert isinstance(norm, nt.DiagonalFactors)
    assert set(norm.diagonal) == {"1.weight", "1.bias"}
    for name, diagonal in norm.diagonal.items():
        squares = [
            torch.autograd.grad(
                torch_loss(criterion, module(x[i : i + 1]), y[i : i + 1]),
                module.get_parameter(name),
            )[0].square()
            for i in range(len(x))
        ]
        assert_close(diagonal, torch.stack(squares).mean(0), name)


@losses
def test_with_batch_statistics_a_sample_gives_what_arrives_through_its_positions(
    criterion: Loss,
) -> None:
    model, module, x, y = compiled(convolutional(kernel=3, norm=True), criterion, 5)
    factors = model.linearize(x, y).kronecker_factors("empirical")
    compare(factors, module.train(), observe(module, criterion, x, y))


@settings(derandomize=True, deadline=None, max_examples=20)
@given(pairs())
def test_random_networks(pair: Pair) -> None:
    torch.manual_seed(0)
    criterion = nt.CrossEntropyLoss()
    model, module, x, y = compiled(pair, criterion, 3)
    for training in (False, True):
        module.train(training)
        factors = model.linearize(x, y, training).kronecker_factors("empirical")
        compare(factors, module, observe(module, criterion, x, y))


def test_the_stored_order_is_tap_by_channel_with_the_bias_last() -> None:
    model, _, x, y = compiled(convolutional(kernel=(3, 2)), nt.CrossEntropyLoss(), 4)
    factors = model.linearize(x, y).kronecker_factors("empirical")["0"]
    assert isinstance(factors, nt.KroneckerFactors)
    mean = nn.functional.unfold(x, 3, padding=1).mean((0, 2)).view(2, 9)
    one = mean.new_ones(1)
    assert_close(factors.A_stored[-1], torch.cat([mean.T.flatten(), one]), "(tap, channel)")
    assert_close(factors.A[-1], torch.cat([mean.flatten(), one]), "(channel, tap)")


def test_a_grouped_convolution_has_a_pair_per_group() -> None:
    pair = convolutional(kernel=(3, 2), groups=2)
    model, _, x, y = compiled(pair, nt.CrossEntropyLoss(), 4)
    factors = model.linearize(x, y).kronecker_factors("empirical")["2"]
    assert isinstance(factors, nt.KroneckerFactors)
    assert factors.A.shape == factors.A_stored.shape == (2, 2 * 6 + 1, 2 * 6 + 1)
    assert factors.G.shape == (2, 3, 3)


# --- against curvlinops, and where the block is exact ---------------------------------------------

# Its A is ours. Its block is linear in the scale of its loss, all in G; our h is the mean over the
# batch of losses summed over outputs. So "sum" makes its G larger by N, and the "mean" of MSE
# and BCE, which goes over the K outputs as well, smaller by K.
SCALES = [
    (nt.CrossEntropyLoss(), nn.CrossEntropyLoss(), "1"),
    (nt.CrossEntropyLoss(), nn.CrossEntropyLoss(reduction="sum"), "N"),
    (nt.MSELoss(), nn.MSELoss(), "1/K"),
    (nt.MSELoss(), nn.MSELoss(reduction="sum"), "N"),
    (nt.BCEWithLogitsLoss(), nn.BCEWithLogitsLoss(), "1/K"),
    (nt.BCEWithLogitsLoss(), nn.BCEWithLogitsLoss(reduction="sum"), "N"),
]


def ungrouped() -> Iterator[Pair]:
    yield perceptron()
    for window in WINDOWS:
        if "groups" not in window:
            yield convolutional(**window)


@pytest.mark.parametrize(("criterion", "theirs", "scale"), SCALES, ids=str)
def test_the_blocks_are_those_of_curvlinops(criterion: Loss, theirs: Any, scale: str) -> None:
    for pair in ungrouped():
        model, module, x, y = compiled(pair, criterion, 4)
        ratio = {"1": 1.0, "N": float(len(x)), "1/K": 1 / pair.outputs}[scale]
        factors = model.linearize(x, y).kronecker_factors("empirical")
        operator = KFACLinearOperator(
            module, theirs, list(module.parameters()), [(x, y)], check_deterministic=False,
            fisher_type="empirical", kfac_approx="expand", separate_weight_and_bias=False,
        )  # fmt: skip
        v = [torch.randn_like(p) for p in module.parameters()]
        products: Any = operator @ v
        for i, (name, ours) in enumerate(factors.items()):
            assert isinstance(ours, nt.KroneckerFactors)
            assert_close(ours.A, operator._input_covariances[name], f"A of {name}")
            assert_close(ratio * ours.G, operator._gradient_covariances[name], f"G of {name}")
            matrix, product = (
                torch.cat([w[2 * i].flatten(1), w[2 * i + 1][:, None]], 1) for w in (v, products)
            )
            assert_close(ratio * ours.G @ matrix @ ours.A, product, f"(A ⊗ G) v of {name}")


@losses
def test_for_one_sample_a_linear_block_is_the_outer_product_of_its_gradient(
    criterion: Loss,
) -> None:
    model, _, x, y = compiled(perceptron(), criterion, 1)
    lin = model.linearize(x, y)
    gradient = model.unflatten(lin.gradient)
    for name, ours in lin.kronecker_factors("empirical").items():
        assert isinstance(ours, nt.KroneckerFactors)
        weight, bias = gradient[f"{name}.weight"], gradient[f"{name}.bias"]
        g = torch.cat([weight, bias[:, None]], 1).T.flatten()  # columns stacked: A ⊗ G
        assert_close(torch.kron(ours.A, ours.G), g.outer(g), name)


# --- the exact factors, by a root of B -----------------------------------------------------------


@pytest.mark.parametrize(("criterion", "theirs", "scale"), SCALES, ids=str)
def test_exact_factors_are_those_of_curvlinops(criterion: Loss, theirs: Any, scale: str):
    for pair in ungrouped():
        model, module, x, y = compiled(pair, criterion, 4)
        ratio = {"1": 1.0, "N": float(len(x)), "1/K": 1 / pair.outputs}[scale]
        factors = model.linearize(x, y).kronecker_factors("kflr")
        if y.is_floating_point() and isinstance(criterion, nt.BCEWithLogitsLoss):
            y = y.round()  # it takes no others, and B does not depend on them
        operator = KFACLinearOperator(
            module, theirs, list(module.parameters()), [(x, y)], check_deterministic=False,
            fisher_type="type-2", kfac_approx="expand", separate_weight_and_bias=False,
        )  # fmt: skip
        operator @ [torch.zeros_like(p) for p in module.parameters()]
        for name, ours in factors.items():
            assert isinstance(ours, nt.KroneckerFactors)
            assert_close(ours.A, operator._input_covariances[name], f"A of {name}")
            assert_close(ratio * ours.G, operator._gradient_covariances[name], f"G of {name}")


@pytest.mark.parametrize(("criterion", "theirs"), [SCALES[0][:2], SCALES[2][:2]], ids=str)
def test_exact_factors_are_those_of_backpack(criterion: Loss, theirs: Any):
    """Its binary cross-entropy takes one output only."""
    model, module, x, y = compiled(perceptron(), criterion, 5)
    scale = 1.0 if isinstance(criterion, nt.CrossEntropyLoss) else 1 / y.shape[1]
    module, theirs = extend(module), extend(deepcopy(theirs))
    with backpack(extensions.KFLR()):
        theirs(module(x.clone().requires_grad_()), y).backward()
    for name, ours in model.linearize(x, y).kronecker_factors("kflr").items():
        assert isinstance(ours, nt.KroneckerFactors)
        layer = module.get_submodule(name)
        g, a = layer.weight.kflr  # type: ignore[union-attr]
        assert_close(scale * ours.G, g, f"G of {name}")
        assert_close(ours.A[:-1, :-1], a, f"A of {name}")


@losses
def test_for_one_sample_an_exact_linear_block_is_that_of_the_gauss_newton_matrix(
    criterion: Loss,
):
    model, _, x, y = compiled(perceptron(), criterion, 1)
    lin = model.linearize(x, y)
    ggn = torch.stack([lin.ggnvp(e) for e in torch.eye(model.params.numel(), dtype=x.dtype)])
    for name, ours in lin.kronecker_factors("kflr").items():
        assert isinstance(ours, nt.KroneckerFactors)
        parts = [f"{name}.weight", f"{name}.bias"]
        at = model.unflatten(torch.arange(len(ggn)))
        order = torch.cat([at[parts[0]], at[parts[1]][:, None]], 1).T.flatten()
        assert_close(torch.kron(ours.A, ours.G), ggn[order][:, order], name)


@losses
def test_drawn_labels_have_the_exact_factors_as_their_mean(criterion: Loss):
    model, _, x, y = compiled(perceptron(), criterion, 3)
    lin = model.linearize(x, y)
    exact = lin.kronecker_factors("kflr")
    drawn_ = lin.kronecker_factors("kfac", 20_000, torch.Generator().manual_seed(0))
    for name, ours in exact.items():
        g = drawn_[name].G  # type: ignore[union-attr]
        assert (g - ours.G).norm() < 0.03 * ours.G.norm()  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["KFAC", "fisher", "", None])
def test_an_unknown_kind_is_refused_with_the_known_ones(kind: Any) -> None:
    model, _, x, y = compiled(perceptron(), nt.MSELoss(), 2)
    with pytest.raises(nt.NewtritonError, match=f"kind is {kind!r}.*'kfac', 'empirical'"):
        model.linearize(x, y).kronecker_factors(kind)


@pytest.mark.parametrize("samples", [0, -1, 1.0, "2", None])
def test_samples_are_a_positive_integer(samples: Any) -> None:
    model, _, x, y = compiled(perceptron(), nt.MSELoss(), 2)
    with pytest.raises(nt.NewtritonError, match=f"samples is {samples!r}.*positive integer"):
        model.linearize(x, y).kronecker_factors("kfac", samples)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 2])
def test_the_mean_of_the_inputs_is_that_of_patches_at_all_positions(
    groups: int, bias: bool
) -> None:
    window = {"stride": 2, "padding": 1, "dilation": (1, 2)}
    net = nt.Sequential(
        nt.Conv2d(4, (3, 2), groups=groups, bias=bias, **window), nt.Flatten(), nt.Linear(3)
    )
    model = nt.compile(net, (2, 6, 7), nt.CrossEntropyLoss(), dtype=torch.float64)
    x = torch.randn(5, 2, 6, 7, dtype=torch.float64)
    lin = model.linearize(x, torch.arange(5) % 3)
    found = lin.kronecker_factors("empirical", means=["0"])
    full = lin.kronecker_factors("empirical")
    factors = found["0"]
    assert isinstance(factors, nt.MeanFactors)
    patches = torch.nn.functional.unfold(x, (3, 2), **window).mean((0, 2))  # (channel, tap)
    expected = patches.view(groups, 2 // groups, 6).mT.reshape(groups, -1)  # (tap, channel)
    assert_close(factors.mean.view(groups, -1), expected)
    assert_close(factors.G, full["0"].G)
    assert isinstance(found["2"], nt.KroneckerFactors)
    root = factors.root
    assert_close(factors.times_inputs(torch.eye(root.shape[-2]).double()), root @ root.mT)
    if bias:
        assert_close(root[..., 0], full["0"].A_stored[..., -1])
