"""Second moments in a basis, against the gradient of each sample and the exact curvature."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import newtriton as nt
from newtriton.compiler.graph.errors import NewtritonError
from newtriton.compiler.language.loss import Loss
from newtriton.runtime.curvatures.kronecker_block import KroneckerBlock
from newtriton.runtime.model.moments import SampledFactors
from tests.tolerances import assert_close

from .blocks import WINDOWS, compiled, convolutional, losses, perceptron


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


class Rows:
    """A linear map of each row of an image, one after another: a product with positions."""

    def __init__(self, features: int) -> None:
        self.features = features

    def build(self, x: Any, scope: Any) -> Any:
        n, c, h, w = x.shape[0], x.shape[-1], *x.shape[1:-1]
        fans = (w * c, self.features)
        weight = scope.parameter("weight", (self.features, w * c), "default", fans)
        bias = scope.parameter("bias", (self.features,), "zeros", fans)
        rows = nt.ops.matmul(nt.ops.reshape(x, (n, h, w * c)), weight, bias, tb=True)
        return nt.ops.reshape(rows, (n, h * self.features))


def sampled(lin: Any, kind: str, *arguments: Any) -> dict[str, SampledFactors]:
    found = lin.kronecker_factors(kind, *arguments, per_sample=True)
    return {layer: f for layer, f in found.items() if isinstance(f, SampledFactors)}


def bases(factors: SampledFactors) -> list[Tensor]:
    """An orthonormal basis for either side, one per group, of no meaning."""
    return [torch.linalg.qr(torch.randn_like(x)).Q for x in factors.pair.tensors.values()]


def matrix(model: nt.Model, factors: SampledFactors, v: Tensor) -> Tensor:
    """A layer's part of a flat vector."""
    return KroneckerBlock(factors.described).read(model.layout.views(v))


def moments(
    model: nt.Model, of: SampledFactors, gradients: list[Tensor], u: list[Tensor]
) -> Tensor:
    """The mean over samples of the squared gradient in a basis, by its definition."""
    turned = [u[1].mT @ matrix(model, of, g) @ u[0] for g in gradients]
    return torch.stack(turned).square().mean(0)


def check_empirical(model: nt.Model, x: Tensor, y: Tensor, limit: int) -> None:
    alone = [model.linearize(x[[i]], y[[i]]).gradient for i in range(len(x))]
    for layer, factors in sampled(model.linearize(x, y), "empirical").items():
        u = bases(factors)
        found = factors.second_moments(u[0], u[1], limit)
        assert_close(found, moments(model, factors, alone, u), layer)


@pytest.mark.parametrize("limit", [1, 1 << 26])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_they_are_of_the_gradients_of_single_samples(
    window: dict[str, Any], bias: bool, limit: int
) -> None:
    pair = convolutional(**window, bias=bias)
    model, _, x, y = compiled(pair, nt.CrossEntropyLoss(), 5)
    check_empirical(model, x, y, limit)


@losses
def test_they_are_so_for_every_loss(criterion: Loss) -> None:
    model, _, x, y = compiled(perceptron(), criterion, 5)
    check_empirical(model, x, y, 1 << 26)


@pytest.mark.parametrize("limit", [1, 1 << 26])
@pytest.mark.parametrize("features", [3, 9])  # fewer and more than there are positions
def test_a_linear_layer_may_have_positions(features: int, limit: int) -> None:
    net = nt.Sequential(nt.Conv2d(2, 3), nt.Tanh(), Rows(features), nt.Tanh(), nt.Linear(3))
    model = nt.compile(net, (1, 7, 5), nt.CrossEntropyLoss(), dtype=torch.float64)
    x, y = torch.randn(4, 1, 7, 5, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    check_empirical(model, x, y, limit)


@pytest.mark.parametrize("pair", [perceptron(), convolutional(kernel=3, groups=2)], ids=["1", "2"])
@losses
def test_by_a_root_of_b_they_are_the_diagonal_of_the_gauss_newton_matrix(
    criterion: Loss, pair: Any
) -> None:
    """In the basis u_G ⊗ u_A, without sampling."""
    model, _, x, y = compiled(pair, criterion, 3)
    lin = model.linearize(x, y)
    for layer, factors in sampled(lin, "kflr").items():
        u = bases(factors)
        found, block = factors.second_moments(*u), KroneckerBlock(factors.described)
        expected = torch.zeros_like(found)
        for at in torch.ones_like(found).nonzero().tolist()[::3]:
            unit = torch.zeros_like(found)
            unit[tuple(at)] = 1.0
            v = torch.zeros_like(model.params)
            block.write(model.layout.views(v), u[1] @ unit @ u[0].mT)
            expected[tuple(at)] = v @ lin.data_product(v, "ggn")
        assert_close(torch.where(expected != 0, found, 0.0), expected, layer)


@losses
def test_drawn_labels_are_those_of_the_factors(criterion: Loss) -> None:
    """The trace of a block is the same in any basis, and its mean over draws is the exact one."""
    model, _, x, y = compiled(perceptron(), criterion, 1)
    lin = model.linearize(x, y)
    exact = sampled(lin, "kflr")
    generator = torch.Generator().manual_seed(0)
    for layer, factors in sampled(lin, "kfac", 5_000, generator).items():
        u = bases(factors)
        found = factors.second_moments(*u)
        traces = [t.trace() for t in factors.pair.tensors.values()]
        assert_close(found.sum(), traces[0] * traces[1], layer)  # one sample: an outer product
        error = found - exact[layer].second_moments(*u)
        assert error.norm() < 0.06 * found.norm()
    again = lin.kronecker_factors("kfac", 2, torch.Generator().manual_seed(1))
    for layer, factors in sampled(lin, "kfac", 2, torch.Generator().manual_seed(1)).items():
        assert torch.equal(factors.pair.G, again[layer].G)  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["kfra", "pch-1"])
def test_what_averages_first_has_nothing_per_sample(kind: str) -> None:
    model, _, x, y = compiled(perceptron(), nt.CrossEntropyLoss(), 2)
    with pytest.raises(NewtritonError, match=f"kind {kind!r}.*nothing per sample: one of kfac"):
        model.linearize(x, y).kronecker_factors(kind, per_sample=True)


class Watched(TorchDispatchMode):
    """The most bytes that are alive at once, of tensors made inside."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.most = 0

    def _forget(self, size: int) -> None:
        self.alive -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            given = [a for a in args if isinstance(a, Tensor)]
            aliases = {a.untyped_storage().data_ptr() for a in given}
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in aliases:
                size = tensor.untyped_storage().nbytes()
                weakref.finalize(tensor.untyped_storage(), self._forget, size)
                self.alive += size
                self.most = max(self.most, self.alive)
        return result


@pytest.mark.parametrize("features", [2, 40])  # more positions than rows, and fewer
@pytest.mark.parametrize("groups", [1, 2])
def test_a_chunk_takes_no_more_than_its_limit(features: int, groups: int) -> None:
    net = nt.Sequential(
        nt.Conv2d(features, 3, padding=1, groups=groups), nt.Flatten(), nt.Linear(3)
    )
    model = nt.compile(net, (2, 5, 6), nt.CrossEntropyLoss(), dtype=torch.float64)
    x, y = torch.randn(32, 2, 5, 6, dtype=torch.float64), torch.arange(32) % 3
    factors = sampled(model.linearize(x, y), "empirical")["0"]
    u = bases(factors)
    limit, result = 8 * factors.sample_bytes(), 8 * factors.pair.G.shape[-1] * u[0].shape[-1]
    with Watched() as watched:
        factors.second_moments(u[0], u[1], limit)
    assert watched.most <= limit + 3 * groups * result  # the sum, and a chunk's part of it
    with Watched() as whole:
        factors.second_moments(*u)
    assert whole.most > 2 * watched.most


@pytest.mark.interpreter
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # masked elements, in NumPy
def test_fused_kernels_give_the_same() -> None:
    net = nt.Sequential(
        *(nt.Conv2d(4, 3, padding=1), nt.ReLU(), nt.MaxPool2d(2)),
        *(nt.Conv2d(2, 3, groups=2, stride=2, padding=1), nt.Flatten(), nt.Linear(3)),
    )
    x, y = torch.randn(3, 2, 6, 6), torch.arange(3)
    found = []
    for backend in ("aten", "triton"):
        model = nt.compile(net, (2, 6, 6), nt.CrossEntropyLoss(), backend=backend, device="cpu")
        made = sampled(model.linearize(x, y), "kfac", 2, torch.Generator().manual_seed(0))
        torch.manual_seed(0)
        found.append({layer: f.second_moments(*bases(f)) for layer, f in made.items()})
    for layer, expected in found[0].items():
        assert_close(found[1][layer], expected, layer)
