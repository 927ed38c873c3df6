"""KFRA and PCH against dense recursions, BackPACK, and each other where they must coincide."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from backpack import backpack, extend, extensions
from torch import Tensor, nn

import newtriton as nt
from newtriton.compiler.curvature.recursion import RECURSIVE
from newtriton.compiler.graph.ir import N
from newtriton.runtime.curvatures.kronecker import KroneckerCurvature
from tests.tolerances import assert_close

F64 = torch.float64
ACTIVATIONS = (nn.Tanh, nn.SiLU, nn.Sigmoid, nn.ReLU)
vmap, jacrev, hessian = torch.func.vmap, torch.func.jacrev, torch.func.hessian


def perceptron(act: Any = nt.Tanh, theirs: Any = nn.Tanh) -> tuple[Any, nn.Sequential, Any]:
    net = nt.Sequential(nt.Linear(4), act(), nt.Linear(3), act(), nt.Linear(3))
    layers = [nn.Linear(5, 4), theirs(), nn.Linear(4, 3), theirs(), nn.Linear(3, 3)]
    return net, nn.Sequential(*layers), (5,)


def convolutional() -> tuple[Any, nn.Sequential, Any]:
    net = nt.Sequential(
        *(nt.Conv2d(3, 3, padding=1), nt.SiLU(), nt.MaxPool2d(2), nt.Conv2d(4, 2, stride=2)),
        *(nt.Tanh(), nt.AvgPool2d(1), nt.Flatten(), nt.Linear(3)),
    )
    module = nn.Sequential(
        *(nn.Conv2d(2, 3, 3, padding=1), nn.SiLU(), nn.MaxPool2d(2), nn.Conv2d(3, 4, 2, stride=2)),
        *(nn.Tanh(), nn.AvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)),
    )
    return net, module, (2, 6, 6)


def overlapping() -> tuple[Any, nn.Sequential, Any]:
    net = nt.Sequential(
        nt.Conv2d(3, 3), nt.Tanh(), nt.MaxPool2d(3, 2, 1), nt.Flatten(), nt.Linear(3)
    )
    layers = [nn.Conv2d(1, 3, 3), nn.Tanh(), nn.MaxPool2d(3, 2, 1), nn.Flatten(), nn.Linear(12, 3)]
    return net, nn.Sequential(*layers), (1, 6, 6)


def setting(made: tuple[Any, nn.Sequential, Any], criterion: Any, n: int):
    """A model, the same module in float64, and a batch."""
    torch.manual_seed(0)
    net, module, shape = made
    module = module.double()
    model = nt.compile(net, shape, criterion, dtype=F64, backend="aten", device="cpu")
    model.load_state_dict(module.state_dict())
    x = torch.randn(n, *shape, dtype=F64)
    entropy = isinstance(criterion, nt.CrossEntropyLoss)
    return model, module, x, torch.randint(0, 3, (n,)) if entropy else torch.rand(n, 3, dtype=F64)


def per_sample(criterion: Any, z: Tensor, y: Tensor) -> Tensor:
    if isinstance(criterion, nt.CrossEntropyLoss):
        return nn.functional.cross_entropy(z, y)
    if isinstance(criterion, nt.BCEWithLogitsLoss):
        return nn.functional.binary_cross_entropy_with_logits(z, y, reduction="sum")
    return ((z - y) ** 2).sum()


GAMMAS = {"pch-1": -1.0, "pch-2": 0.0}


def dense(
    module: nn.Sequential,
    criterion: Any,
    x: Tensor,
    y: Tensor,
    kind: str,
    gamma: float | None = None,
):
    """The recursion with dense Jacobians, sample by sample; features in PyTorch's order."""
    values, n = [x.clone().requires_grad_()], len(x)
    for layer in module:
        values.append(layer(values[-1]))
    losses = [per_sample(criterion, values[-1][i : i + 1], y[i : i + 1]) for i in range(n)]
    grads = torch.autograd.grad(sum(losses), values)  # type: ignore[arg-type]
    values = [v.detach() for v in values]
    z = values[-1]
    b = vmap(hessian(lambda r, t: per_sample(criterion, r[None], t[None])))(z, y)
    g, found = b.mean(0), {}
    for k in reversed(range(len(module))):
        layer, a, s = module[k], values[k], values[k + 1]
        if isinstance(layer, nn.Linear):
            found[str(k)] = g
        elif isinstance(layer, nn.Conv2d):
            t = s[0, 0].numel()
            found[str(k)] = torch.einsum("atbt->ab", g.reshape(s.shape[1], t, s.shape[1], t))
        j = vmap(jacrev(lambda v, f=layer: f(v[None])[0].flatten()))(a)
        j = j.reshape(n, s[0].numel(), a[0].numel())
        if not isinstance(layer, ACTIVATIONS):
            g = torch.einsum("npi,pq,nqj->ij", j, g, j) / n
            continue
        slope = j.diagonal(dim1=1, dim2=2)
        g = g * (slope.T @ slope) / n
        if kind != "kfra":

            def bent(v: Tensor, c: Tensor, f: nn.Module = layer) -> Tensor:
                return hessian(lambda w: (f(w) * c).sum())(v).diagonal()

            mean = vmap(bent)(a.reshape(n, -1), grads[k + 1].reshape(n, -1)).mean(0)
            factor = GAMMAS[kind] if gamma is None else gamma
            g = g + torch.diag(torch.where(mean < 0.0, factor * mean, mean))
    return found


@pytest.mark.parametrize(
    "criterion", [nt.CrossEntropyLoss(), nt.MSELoss(), nt.BCEWithLogitsLoss()], ids=str
)
@pytest.mark.parametrize("made", [perceptron, convolutional, overlapping])
@pytest.mark.parametrize("kind", RECURSIVE)
def test_factors_are_those_of_a_dense_recursion(kind: str, made: Any, criterion: Any):
    model, module, x, y = setting(made(), criterion, 4)
    found = model.linearize(x, y).kronecker_factors(kind)
    for name, expected in dense(module, criterion, x, y, kind).items():
        assert_close(found[name].G, expected, name)  # type: ignore[union-attr]


@pytest.mark.parametrize("gamma", [-2.5, -1.0, -0.3, 0.0, -0.0, 0])
@pytest.mark.parametrize("kind", ["pch-1", "pch-2"])
def test_negative_eigenvalues_are_multiplied_by_any_gamma_that_is_not_positive(
    kind: str, gamma: float
):
    """Chen, Chou & Chang 2018, eq. 8b."""
    model, module, x, y = setting(convolutional(), nt.CrossEntropyLoss(), 4)
    found = model.linearize(x, y).kronecker_factors(kind, pos_eig=gamma)
    for name, expected in dense(module, nt.CrossEntropyLoss(), x, y, kind, gamma).items():
        assert_close(found[name].G, expected, name)  # type: ignore[union-attr]


@pytest.mark.parametrize("gamma", [-2.5, -0.3, 0.0])
def test_so_are_those_of_an_indefinite_mean_of_b(gamma: float):
    """Eq. 8a: of the last layer, from which the recursion starts."""
    torch.manual_seed(1)
    model, module, x, _ = setting(perceptron(), nt.SigmoidMarginLoss(), 6)
    y = torch.randint(0, 3, (6,))
    module[-1].weight.data.mul_(8.0)  # sure of its classes: B is indefinite
    model.load_state_dict(module.state_dict())

    def loss(z: Tensor, y: Tensor) -> Tensor:
        margin = torch.softmax(z, 0)[y] - 0.2
        return 1.0 / (1.0 + torch.exp(5.0 * margin))

    rows = module(x).detach()
    b = torch.stack([hessian(loss)(z, label) for z, label in zip(rows, y, strict=True)]).mean(0)
    values, vectors = torch.linalg.eigh(b)
    assert float(values[0]) < -1e-3
    values = torch.where(values < 0.0, gamma * values, values)
    expected = vectors @ values.diag() @ vectors.T
    found = model.linearize(x, y).kronecker_factors("pch-1", pos_eig=gamma)["4"]
    assert_close(found.G, expected)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("kind", "gamma", "named"),
    [
        ("pch-1", 0.5, r"pos_eig is 0\.5: give a number ≤ 0"),
        ("pch-2", float("nan"), "pos_eig is nan"),
        ("pch-2", "abs", "pos_eig is 'abs'"),
        ("kfra", -1.0, r"pos_eig is -1\.0: factors of kind 'kfra' have no Pos-Eig"),
    ],
)
def test_refuses_other_gammas(kind: str, gamma: Any, named: str):
    model, _, x, y = setting(perceptron(), nt.CrossEntropyLoss(), 4)
    for call in (
        lambda: model.linearize(x, y).kronecker_factors(kind, pos_eig=gamma),
        lambda: KroneckerCurvature(model, kind, pos_eig=gamma),
        lambda: nt.EACG(model, factors=kind, pos_eig=gamma),
    ):
        with pytest.raises(nt.NewtritonError, match=named):
            call()


@pytest.mark.parametrize("criterion", [nt.MSELoss(), nt.BCEWithLogitsLoss()], ids=str)
def test_a_separable_loss_needs_no_copy_per_output(criterion: Any):
    model, _, x, y = setting(perceptron(), criterion, 4)
    graph = model.linearize(x, y).programs.factors("kfra").graph
    assert (3, N, 3) not in {node.shape for node in graph.computed()}


def test_inputs_are_those_of_kfac():
    model, _, x, y = setting(convolutional(), nt.CrossEntropyLoss(), 4)
    lin = model.linearize(x, y)
    kfac = lin.kronecker_factors("empirical")
    for name, ours in lin.kronecker_factors("kfra").items():
        assert_close(ours.A, kfac[name].A, name)  # type: ignore[union-attr]


def test_linear_networks_agree_with_backpack():
    model, module, x, y = setting(perceptron(nt.Sigmoid, nn.Sigmoid), nt.CrossEntropyLoss(), 5)
    module, loss = extend(module), extend(nn.CrossEntropyLoss())
    with backpack(extensions.KFRA()):
        loss(module(x.clone().requires_grad_()), y).backward()
    for name, ours in model.linearize(x, y).kronecker_factors("kfra").items():
        g, _ = module.get_submodule(name).weight.kfra  # type: ignore[union-attr]
        assert_close(ours.G, g, name)  # type: ignore[union-attr]


def test_one_sample_needs_no_approximation():
    """Botev et al. 2017, section 3.3: without bends PCH, KFRA, KFLR and the Hessian coincide."""
    model, _, x, y = setting(perceptron(nt.ReLU, nn.ReLU), nt.CrossEntropyLoss(), 1)
    lin = model.linearize(x, y)
    numel = model.params.numel()
    h = torch.stack([lin.hvp(e) for e in torch.eye(numel, dtype=F64)])
    exact = lin.kronecker_factors("kflr")
    at = model.unflatten(torch.arange(numel))
    for kind in RECURSIVE:
        for name, ours in lin.kronecker_factors(kind).items():
            assert_close(ours.G, exact[name].G, f"{kind} {name}")  # type: ignore[union-attr]
            both = torch.cat([at[f"{name}.weight"], at[f"{name}.bias"][:, None]], 1)
            order = both.T.flatten()
            block = torch.kron(ours.A, ours.G)  # type: ignore[union-attr]
            assert_close(block, h[order][:, order], f"{kind} {name}")


def test_for_one_sample_kfra_is_kflr_whatever_the_activation():
    model, _, x, y = setting(perceptron(), nt.MSELoss(), 1)
    lin = model.linearize(x, y)
    exact = lin.kronecker_factors("kflr")
    for name, ours in lin.kronecker_factors("kfra").items():
        assert_close(ours.G, exact[name].G, name)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((nt.Linear(5), nt.Residual(nt.Linear(5)), nt.Linear(3)), "chains of layers"),
        ((nt.Linear(40_000), nt.Tanh(), nt.Linear(3)), "40000×40000 matrix"),
    ],
)
def test_what_has_no_rule_is_refused_by_name(layers, message: str):
    model = nt.compile(
        nt.Sequential(*layers), (5,), nt.MSELoss(), dtype=F64, backend="aten", device="cpu"
    )
    lin = model.linearize(torch.randn(2, 5, dtype=F64), torch.rand(2, 3, dtype=F64))
    with pytest.raises(nt.NewtritonError, match=message) as raised:
        lin.kronecker_factors("kfra")
    assert "use the kinds 'kfac' or 'kflr'" in str(raised.value)


def test_batch_norm_is_refused():
    net = nt.Sequential(nt.Conv2d(2, 3), nt.BatchNorm2d(), nt.Flatten(), nt.Linear(3))
    model = nt.compile(net, (1, 5, 5), nt.MSELoss(), backend="aten", device="cpu")
    lin = model.linearize(torch.randn(4, 1, 5, 5), torch.rand(4, 3))
    with pytest.raises(nt.MissingRule, match="pch-1 goes along chains of layers"):
        lin.kronecker_factors("pch-1")
