"""Kronecker and diagonal factors against dense constructions, curvlinops, and the exact GGN."""

from __future__ import annotations

import math
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
import torch
from backpack import backpack, extend, extensions
from curvlinops import KFACLinearOperator
from hypothesis import given, settings
from torch import Tensor, nn

import newtriton as nt
from newtriton.compiler.graph.ir import Node
from newtriton.compiler.language.loss import Loss
from newtriton.compiler.language.network import Layer
from tests.networks import Pair, conv, labels, logistic, output_curvature, pairs, torch_loss
from tests.tolerances import assert_close, relative_error

CRITERIA: list[Loss] = [
    *(nt.CrossEntropyLoss(), nt.MSELoss(), nt.BCEWithLogitsLoss()),
    *(nt.MixtureLoss("fisher"), logistic),
]
losses = pytest.mark.parametrize("criterion", CRITERIA, ids=repr)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def compiled(pair: Pair, criterion: Loss, batch: int) -> tuple[nt.Model, nn.Module, Tensor, Tensor]:
    """Both forms with the same random state, batch norm's included, and a batch."""
    model = nt.compile(pair.ours, pair.shape, criterion, dtype=torch.float64)
    state = {
        name: t if t.dtype == torch.int64 else (torch.rand_like(t) + 0.5 if t.ndim == 1 else t)
        for name, t in model.state_dict().items()
    }
    model.load_state_dict(state)
    module = pair.theirs.double()
    module.load_state_dict(state)
    x = torch.randn(batch, *pair.shape, dtype=torch.float64)
    return model, module, x, labels(criterion, batch, pair.outputs, torch.float64)


Seen = dict[str, tuple[Tensor, Tensor]]


def observe(module: nn.Module, criterion: Loss, x: Tensor, y: Tensor) -> Seen:
    """Inputs a and N·∂h/∂s of each layer with parameters: g of the per-sample losses."""
    seen: Seen = {}
    hooks = []
    for name, layer in module.named_modules():
        if next(layer.parameters(recurse=False), None) is not None:

            def keep(_: nn.Module, inputs: Any, output: Tensor, name: str = name) -> None:
                seen[name] = (inputs[0].detach(), output)

            hooks.append(layer.register_forward_hook(keep))
    loss = torch_loss(criterion, module(x), y)
    grads = torch.autograd.grad(loss, [s for _, s in seen.values()])
    for hook in hooks:
        hook.remove()
    return {name: (a, len(x) * g) for (name, (a, _)), g in zip(seen.items(), grads, strict=True)}


def observe_alone(module: nn.Module, criterion: Loss, x: Tensor, y: Tensor) -> Seen:
    """The same from one sample at a time, where samples do not see each other."""
    single = [observe(module, criterion, x[i : i + 1], y[i : i + 1]) for i in range(len(x))]
    return {
        name: (torch.cat([s[name][0] for s in single]), torch.cat([s[name][1] for s in single]))
        for name in single[0]
    }


def dense(layer: nn.Module, a: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """A = 1/(N·T) Σ āāᵀ, G = 1/N Σ ggᵀ, patches by unfold; a leading axis of groups."""
    n = len(a)
    if isinstance(layer, nn.Conv2d):
        groups = layer.groups
        window: Any = (layer.kernel_size, layer.dilation, layer.padding, layer.stride)
        patches = nn.functional.unfold(a, *window)
        rows = patches.unflatten(1, (groups, -1)).permute(1, 0, 3, 2).flatten(1, 2)
        g = g.flatten(2).unflatten(1, (groups, -1)).permute(1, 0, 3, 2).flatten(1, 2)
    else:
        groups, rows, g = 1, a[None], g[None]
    if layer.bias is not None:
        rows = torch.cat([rows, rows.new_ones(*rows.shape[:2], 1)], -1)
    big_a, big_g = rows.mT @ rows / rows.shape[1], g.mT @ g / n
    return (big_a[0], big_g[0]) if groups == 1 else (big_a, big_g)


def dense_diagonal(layer: nn.BatchNorm2d, a: Tensor, g: Tensor) -> dict[str, Tensor]:
    """Mean of (∂ℓ_n/∂p)²; in training mode N times what arrives through sample n's positions."""
    statistics = (None, None) if layer.training else (layer.running_mean, layer.running_var)
    normal = nn.functional.batch_norm(a, *statistics, training=layer.training, eps=layer.eps)
    return {
        "weight": (g * normal).sum((2, 3)).square().mean(0),
        "bias": g.sum((2, 3)).square().mean(0),
    }


def compare(factors: dict[str, Any], module: nn.Module, seen: Seen) -> None:
    """Every layer with parameters has factors, and they are the dense ones."""
    assert set(factors) == set(seen)
    for name, (a, g) in seen.items():
        layer = module.get_submodule(name)
        if isinstance(layer, nn.BatchNorm2d):
            for parameter, expected in dense_diagonal(layer, a, g).items():
                value = factors[name].diagonal[f"{name}.{parameter}"]
                assert_close(value, expected, f"diagonal of {name}.{parameter}")
        else:
            expected_a, expected_g = dense(layer, a, g)
            assert_close(factors[name].A, expected_a, f"A of {name}")
            assert_close(factors[name].G, expected_g, f"G of {name}")


def network(*layers: tuple[Layer, nn.Module], shape: tuple[int, ...], outputs: int) -> Pair:
    ours, theirs = zip(*layers, strict=True)
    return Pair(nt.Sequential(*ours), nn.Sequential(*theirs), shape, outputs)


def perceptron(bias: bool = True) -> Pair:
    return network(
        (nt.Linear(5, bias), nn.Linear(4, 5, bias)), (nt.Tanh(), nn.Tanh()),
        (nt.Linear(3, bias), nn.Linear(5, 3, bias)), shape=(4,), outputs=3,
    )  # fmt: skip


def convolutional(*, norm: bool = False, **options: Any) -> Pair:
    """A convolution with `options` between a plain one and a linear layer."""
    bias = options.get("bias", True)
    first, second = conv(2, 4, 3, padding=1, bias=bias), conv(4, 6, **options)
    norms = [(nt.BatchNorm2d(), nn.BatchNorm2d(4))] if norm else []
    features = second[1](torch.zeros(1, 4, 6, 5)).numel()
    return network(
        first, *norms, (nt.SiLU(), nn.SiLU()), second, (nt.Tanh(), nn.Tanh()),
        (nt.Flatten(), nn.Flatten()), (nt.Linear(3, bias), nn.Linear(features, 3, bias)),
        shape=(2, 6, 5), outputs=3,
    )  # fmt: skip


WINDOWS: list[dict[str, Any]] = [
    {"kernel": 1},
    {"kernel": (3, 2)},
    {"kernel": 3, "padding": 1, "stride": 2},
    {"kernel": (2, 3), "padding": (1, 2), "dilation": (2, 1)},
    {"kernel": 3, "groups": 2, "padding": 1},
    {"kernel": 1, "groups": 2},
    {"kernel": (3, 2), "stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2},
]


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


# --- labels drawn from the model -----------------------------------------------------------------


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
    def given_noise(lin: nt.Linearization, node: Node, generator: object) -> Tensor:
        assert len(node.shape) == noise.ndim
        return noise

    monkeypatch.setattr(nt.Linearization, "_noise", given_noise)


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
