"""Kronecker factors against curvlinops, a dense construction, and what theory says they must be."""

from __future__ import annotations

import pytest
import torch
from curvlinops import KFACLinearOperator
from torch import Tensor, nn

import newtriton as nt
from newtriton.compiler.errors import NewtritonError
from tests.networks import labels, torch_loss
from tests.tolerances import assert_close

WINDOWS = [
    {},
    {"stride": 2, "padding": 1},
    {"stride": (1, 2), "padding": (0, 2), "dilation": (2, 1)},
    {"padding": 1, "groups": 2},
    {"stride": 3, "padding": 2, "dilation": 2, "groups": 2, "bias": False},
]


def convolutional(window: dict) -> tuple[nt.Model, nn.Sequential]:
    """Conv – SiLU – conv with `window` – tanh – linear, in both forms."""
    torch.manual_seed(0)
    body = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.SiLU(), nn.Conv2d(4, 6, (3, 2), **window), nn.Tanh()
    )
    width = body(torch.zeros(1, 3, 7, 6)).numel()
    module = nn.Sequential(*body, nn.Flatten(), nn.Linear(width, 3)).double()
    net = nt.Sequential(
        nt.Conv2d(4, 3, padding=1), nt.SiLU(), nt.Conv2d(6, (3, 2), **window), nt.Tanh(),
        nt.Flatten(), nt.Linear(3),
    )  # fmt: skip
    model = nt.compile(net, (3, 7, 6), nt.CrossEntropyLoss(), dtype=torch.float64, weight_decay=0.1)
    model.load_state_dict(module.state_dict())
    return model, module


def dense(
    module: nn.Sequential, loss: object, x: Tensor, y: Tensor
) -> dict[str, tuple[Tensor, Tensor]]:
    """A and G of every layer by definition: unfolded patches, gradients of per-sample losses."""
    inputs, outputs, value = {}, {}, x
    for name, layer in module.named_children():
        inputs[name], value = value, layer(value)
        if hasattr(layer, "weight"):
            outputs[name] = value
    total = len(x) * torch_loss(loss, value, y)
    gradients = dict(zip(outputs, torch.autograd.grad(total, list(outputs.values())), strict=True))
    result = {}
    for name, slope in gradients.items():
        m, a, g, n, groups = module[int(name)], inputs[name], slope, len(x), 1
        if isinstance(m, nn.Conv2d):
            a = nn.functional.unfold(a, m.kernel_size, m.dilation, m.padding, m.stride)
            groups, g = m.groups, g.flatten(2)
        else:
            a, g = a.unsqueeze(-1), g.unsqueeze(-1)
        positions = g.shape[-1]
        rows = a.view(n, groups, -1, positions).permute(1, 0, 3, 2).flatten(1, 2)
        if m.bias is not None:
            rows = torch.cat([rows, torch.ones_like(rows[..., :1])], -1)
        slopes = g.reshape(n, groups, -1, positions).permute(1, 0, 3, 2).flatten(1, 2)
        pair = rows.mT @ rows / (n * positions), slopes.mT @ slopes / n
        result[name] = tuple(t[0] if groups == 1 else t for t in pair)
    return result


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_factors_equal_their_definition(window: dict) -> None:
    model, module = convolutional(window)
    x, y = torch.randn(5, 3, 7, 6, dtype=torch.float64), torch.randint(0, 3, (5,))
    factors = model.linearize(x, y).kronecker_factors("empirical")
    expected = dense(module, nt.CrossEntropyLoss(), x, y)
    assert set(factors) == set(expected)
    for layer, (a, g) in expected.items():
        assert_close(factors[layer].A, a.detach(), f"A of {layer}")
        assert_close(factors[layer].G, g.detach(), f"G of {layer}")


@pytest.mark.parametrize("window", [w for w in WINDOWS if "groups" not in w], ids=str)
def test_factors_equal_curvlinops(window: dict) -> None:
    model, module = convolutional(window)
    x, y = torch.randn(5, 3, 7, 6, dtype=torch.float64), torch.randint(0, 3, (5,))
    operator = KFACLinearOperator(
        module, nn.CrossEntropyLoss(), list(module.parameters()), [(x, y)],
        fisher_type="empirical", separate_weight_and_bias=False, check_deterministic=False,
    )  # fmt: skip
    operator.compute_kronecker_factors()
    factors = model.linearize(x, y).kronecker_factors("empirical")
    for layer, pair in factors.items():
        assert_close(pair.A, operator._input_covariances[layer].detach(), f"A of {layer}")
        assert_close(pair.G, operator._gradient_covariances[layer].detach(), f"G of {layer}")


def linear(criterion: object, seed: int = 0) -> nt.Model:
    net = nt.Sequential(nt.Linear(5), nt.Tanh(), nt.Linear(3))
    return nt.compile(net, (4,), criterion, dtype=torch.float64, seed=seed)  # type: ignore[arg-type]


def test_at_one_sample_the_block_is_the_outer_product_of_gradients() -> None:
    torch.manual_seed(0)
    model = linear(nt.MSELoss())
    lin = model.linearize(
        torch.randn(1, 4, dtype=torch.float64), torch.rand(1, 3, dtype=torch.float64)
    )
    gradient = model.unflatten(lin.gradient)
    for layer, pair in lin.kronecker_factors("empirical").items():
        parts = [gradient[f"{layer}.weight"], gradient[f"{layer}.bias"][:, None]]
        whole = torch.cat(parts, 1).T.reshape(-1)
        assert_close(torch.kron(pair.A, pair.G), torch.outer(whole, whole), layer)


LOSSES = [nt.CrossEntropyLoss(), nt.MSELoss(), nt.BCEWithLogitsLoss()]


@pytest.mark.parametrize("criterion", LOSSES, ids=repr)
def test_sampled_factors_converge_to_the_exact_ones(criterion: object) -> None:
    torch.manual_seed(0)
    model = linear(criterion)
    x, y = torch.randn(6, 4, dtype=torch.float64), labels(criterion, 6, 3, torch.float64)
    lin = model.linearize(x, y)
    z = lin.outputs.clone().requires_grad_()
    total = 6 * torch_loss(criterion, z, y)
    (slope,) = torch.autograd.grad(total, z, create_graph=True)
    exact = torch.zeros(3, 3, dtype=torch.float64)
    for i in range(3):  # mean over samples of the Hessian of each sample's loss
        exact[i] = torch.autograd.grad(slope[:, i].sum(), z, retain_graph=True)[0].mean(0)
    errors = []
    for samples in (50, 5000):
        generator = torch.Generator().manual_seed(1)
        g = lin.kronecker_factors("kfac", samples, generator)["2"].G
        errors.append(float((g - exact).norm() / exact.norm()))
    assert errors[1] < 0.03, errors  # 30,000 draws: a standard error of about 1 %
    assert errors[1] < errors[0]


def test_a_generator_repeats_its_labels() -> None:
    torch.manual_seed(0)
    model = linear(nt.CrossEntropyLoss())
    lin = model.linearize(torch.randn(8, 4, dtype=torch.float64), torch.randint(0, 3, (8,)))
    draws = [
        lin.kronecker_factors("kfac", 2, torch.Generator().manual_seed(seed))["0"].G
        for seed in (3, 3, 4)
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def normed() -> tuple[nt.Linearization, nt.Model]:
    torch.manual_seed(0)
    net = nt.Sequential(
        nt.Conv2d(4, 3), nt.BatchNorm2d(), nt.Tanh(), nt.Conv2d(3, 3), nt.Flatten(), nt.Linear(2)
    )
    model = nt.compile(net, (2, 7, 7), nt.CrossEntropyLoss(), dtype=torch.float64)
    x, y = torch.randn(6, 2, 7, 7, dtype=torch.float64), torch.randint(0, 2, (6,))
    return model.linearize(x, y), model


def test_copies_of_a_batch_keep_its_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    lin, _ = normed()
    noise = torch.rand(3, 6, dtype=torch.float64)
    drawn = {3: noise}
    monkeypatch.setattr(type(lin), "_noise", lambda self, node, generator: drawn[node.shape[0]])
    together = lin.kronecker_factors("kfac", 3)
    apart = []
    for i in range(3):
        drawn[1] = noise[i : i + 1]
        apart.append(lin.kronecker_factors("kfac", 1))
    for layer in ("0", "3", "5"):
        mean = sum(f[layer].G for f in apart) / 3
        assert_close(together[layer].G, mean, layer)
    for name, diagonal in together["1"].diagonal.items():
        assert_close(diagonal, sum(f["1"].diagonal[name] for f in apart) / 3, name)


def test_affine_batch_norm_gets_the_mean_square_of_per_sample_gradients() -> None:
    lin, model = normed()
    module = nn.BatchNorm2d(4).double()
    x = lin._feed[model.programs[True].traced.x]
    conv = nn.functional.conv2d(x, *(model.state_dict()[f"0.{p}"] for p in ("weight", "bias")))
    normal = module(conv).detach()
    # Every sample sees a γ and β of its own: their gradients are the per-sample ones.
    gamma = torch.ones(6, 4, 1, 1, dtype=torch.float64, requires_grad=True)
    beta = torch.zeros(6, 4, 1, 1, dtype=torch.float64, requires_grad=True)
    state = model.state_dict()
    hidden = nn.functional.conv2d(
        (normal * gamma + beta).tanh(), state["3.weight"], state["3.bias"]
    )
    z = nn.functional.linear(hidden.flatten(1), state["5.weight"], state["5.bias"])
    y = lin._feed[model.programs[True].traced.y]
    slopes = torch.autograd.grad(nn.functional.cross_entropy(z, y, reduction="sum"), [gamma, beta])
    diagonal = lin.kronecker_factors("empirical")["1"].diagonal
    assert_close(diagonal["1.weight"], slopes[0].flatten(1).square().mean(0))
    assert_close(diagonal["1.bias"], slopes[1].flatten(1).square().mean(0))


def test_bad_arguments_are_named() -> None:
    lin, _ = normed()
    with pytest.raises(NewtritonError, match="'kfax'"):
        lin.kronecker_factors("kfax")
    with pytest.raises(NewtritonError, match="samples is 0"):
        lin.kronecker_factors("kfac", samples=0)
