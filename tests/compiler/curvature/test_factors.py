"""Which parameters have factors, and factors of layers that are applied at many positions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

import newtriton as nt
from newtriton.compiler.curvature.factors import (
    KINDS,
    TAPED,
    DiagonalLayer,
    KroneckerLayer,
    LayerAdjoints,
    LayerInputs,
    blocks,
)
from newtriton.compiler.graph import ops, scalar
from newtriton.compiler.graph.errors import MissingRule
from newtriton.compiler.graph.ir import N, Node, Op
from newtriton.compiler.language.network import Layer, Scope, trace
from newtriton.compiler.programs import Programs
from tests.tolerances import assert_close

SAMPLES, POSITIONS, WIDTH, OUT, CLASSES = 5, 4, 3, 2, 3


@dataclass(frozen=True)
class Positionwise:
    """s = W a + b at every position of N×T×D features, which come and go as N×(T·D)."""

    out: int
    positions: int
    bias: bool = True

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns N×(T·out)."""
        width = x.shape[1] // self.positions
        a = ops.reshape(x, (N, self.positions, width))
        w = scope.parameter("weight", (self.out, width), "default", (width, self.out))
        b = (
            scope.parameter("bias", (self.out,), "default", (width, self.out))
            if self.bias
            else None
        )
        return ops.reshape(ops.matmul(a, w, b, tb=True), (N, self.positions * self.out))


@dataclass(frozen=True)
class PerFeature:
    """A parameter per feature, taken by `use`."""

    use: Callable[[Node, Node], Node]

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns what `use` makes of x and the parameter."""
        return self.use(x, scope.parameter("scale", (x.shape[1],), "ones", (1, 1)))


def spread(x: Node, scale: Node) -> Node:
    return ops.multiply(x, ops.broadcast(scale, x.shape))


def exponential(x: Node, scale: Node) -> Node:
    return spread(x, ops.map_(scalar.exp(scalar.var(0)), scale))


def as_weights(x: Node, scale: Node) -> Node:
    return ops.matmul(x, ops.reshape(scale, (1, x.shape[1])), tb=True)


def untransposed(x: Node, scale: Node) -> Node:
    square = ops.broadcast(scale, (x.shape[1], x.shape[1]))
    return ops.matmul(x, square)


def traced(layer: Layer) -> list[KroneckerLayer | DiagonalLayer]:
    net = nt.Sequential(nt.Linear(4), layer, nt.Linear(2))
    return blocks(trace(net, (3,), nt.MSELoss()))


def test_layers_say_which_parameters_form_a_block() -> None:
    first, last, middle = traced(PerFeature(spread))
    assert first == KroneckerLayer("0", "0.weight", "0.bias", 1, (1, 1))
    assert last == KroneckerLayer("2", "2.weight", "2.bias", 1, (1, 1))
    assert middle == DiagonalLayer("1", ("1.scale",))


def test_a_convolution_says_how_its_window_moves() -> None:
    conv = nt.Conv2d(4, (3, 2), stride=2, padding=(1, 0), dilation=(1, 2), groups=2)
    (block,) = blocks(trace(nt.Sequential(conv, nt.Flatten()), (2, 7, 7), nt.MSELoss()))
    window = {"kernel": (3, 2), "stride": (2, 2), "padding": (1, 0), "dilation": (1, 2)}
    assert block == KroneckerLayer("0", "0.weight", "0.bias", groups=2, **window)


@pytest.mark.parametrize("kind", TAPED)
def test_samples_come_with_the_factors_and_cost_no_contraction(kind: str) -> None:
    net = nt.Sequential(nt.Conv2d(4, 3), nt.Tanh(), nt.MaxPool2d(2), nt.Flatten(), nt.Linear(2))
    made = Programs(trace(net, (2, 6, 6), nt.CrossEntropyLoss()))
    without, program = made.factors(kind, 2), made.factors(kind, 2, per_sample=True)
    new = set(program.outputs) - set(without.outputs)
    assert new == {key(layer) for key in (LayerInputs, LayerAdjoints) for layer in ("0", "4")}
    assert program.outputs[LayerInputs("4")].shape == (N, 16)
    lead = {"kfac": (2,), "kflr": (2,), "empirical": ()}[kind]
    assert program.outputs[LayerAdjoints("0")].shape == (*lead, N, 4, 4, 4)
    contractions = [
        [node.op for node in of.graph.nodes() if node.op in (Op.CONV, Op.MATMUL, Op.GRAM)]
        for of in (without, program)
    ]
    assert contractions[0] == contractions[1]


@pytest.mark.parametrize("use", [exponential, untransposed])
def test_a_parameter_without_a_rule_is_refused_by_name(use: Callable[[Node, Node], Node]) -> None:
    with pytest.raises(MissingRule, match=r"no Kronecker or diagonal rule.*PerFeature"):
        traced(PerFeature(use))


class WeightAndScale:
    """A contraction and a broadcast in one layer."""

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns as many features as x has."""
        w = scope.parameter("weight", (x.shape[1], x.shape[1]), "default", (1, 1))
        return spread(
            ops.matmul(x, w, tb=True), scope.parameter("s", (x.shape[1],), "ones", (1, 1))
        )


def test_of_a_layers_blocks_the_product_has_its_name_and_the_others_that_of_a_parameter() -> None:
    _, product, _, scale = traced(WeightAndScale())
    assert product == KroneckerLayer("1", "1.weight", None, 1, (1, 1))
    assert scale == DiagonalLayer("1.s", ("1.s",))


def test_weights_may_be_views() -> None:
    _, middle, _ = traced(PerFeature(as_weights))
    assert middle == KroneckerLayer("1", "1.scale", None, 1, (1, 1), rows=1)


def batch() -> tuple[Tensor, Tensor]:
    return torch.randn(5, 3, dtype=torch.float64), torch.rand(5, 2, dtype=torch.float64)


@pytest.mark.parametrize("layer", [PerFeature(exponential), PerFeature(untransposed)])
@pytest.mark.parametrize("kind", TAPED)
def test_layers_that_are_named_have_factors_whatever_the_others_are(
    layer: Layer, kind: str
) -> None:
    net = nt.Sequential(nt.Linear(4), layer, nt.Linear(2))
    model = nt.compile(net, (3,), nt.MSELoss(), dtype=torch.float64)
    assert [block.layer for block in model.known_blocks] == ["0", "2"]
    lin = model.linearize(*batch())
    assert lin.kronecker_factors(kind, layers=["2"]).keys() == {"2"}
    for layers in (None, ["0", "1"]):
        with pytest.raises(MissingRule):
            lin.kronecker_factors(kind, layers=layers)


@pytest.mark.parametrize("kind", KINDS)
def test_factors_of_layers_that_are_named_are_those_among_all(kind: str) -> None:
    net = nt.Sequential(nt.Linear(4), nt.Tanh(), nt.Linear(3), nt.Tanh(), nt.Linear(2))
    lin = nt.compile(net, (3,), nt.MSELoss(), dtype=torch.float64).linearize(*batch())
    every, named = (
        lin.kronecker_factors(kind, 2, torch.Generator().manual_seed(0), layers=layers)
        for layers in (None, ["2", "4"])
    )
    assert named.keys() == {"2", "4"}
    for layer, factors in named.items():
        for name, tensor in factors.tensors.items():
            assert_close(tensor, every[layer].tensors[name], f"{layer} {name}")


# --- positions -----------------------------------------------------------------------------------


def positionwise(bias: bool, activation: Layer, criterion: nt.Loss) -> tuple[nt.Model, Tensor]:
    """A model with two layers that are applied at every position, and inputs."""
    net = nt.Sequential(
        Positionwise(OUT, POSITIONS, bias), activation, Positionwise(OUT, POSITIONS, bias),
        nt.Linear(CLASSES),
    )  # fmt: skip
    model = nt.compile(net, (POSITIONS * WIDTH,), criterion, backend="aten", dtype=torch.float64)
    x = torch.randn(SAMPLES, POSITIONS * WIDTH, dtype=torch.float64)
    return model, x


def forward(model: nt.Model, x: Tensor, activation: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Inputs and outputs of the layers, in PyTorch: a₀, s₀, a₁, s₁, N×T×…, and z."""
    p = {name: view.clone() for name, view in model.named_parameters()}

    def layer(name: str, a: Tensor) -> Tensor:
        s = a @ p[f"{name}.weight"].T + p.get(f"{name}.bias", torch.zeros(()).double())
        return s.requires_grad_() if not s.requires_grad else s

    a0 = x.view(SAMPLES, POSITIONS, WIDTH)
    s0 = layer("0", a0)
    a1 = activation(s0)
    s1 = layer("2", a1)
    return [a0, s0, a1, s1, layer("3", s1.flatten(1))]


def a_of(a: Tensor, bias: bool) -> Tensor:
    """1/(N·T) Σ ā āᵀ."""
    rows = a.detach().flatten(0, 1)
    rows = torch.cat([rows, torch.ones(len(rows), 1).double()], 1) if bias else rows
    return rows.T @ rows / len(rows)


def g_of(s: Tensor, columns: list[Tensor]) -> Tensor:
    """1/N Σ g gᵀ over positions, for the gradients g of `columns`, one number for each sample."""
    rows = [torch.autograd.grad(c.sum(), s, retain_graph=True)[0].flatten(0, 1) for c in columns]
    return sum(g.T @ g for g in rows) / SAMPLES  # type: ignore[return-value]


@pytest.mark.parametrize("bias", [False, True])
def test_empirical_factors_of_a_layer_with_positions(bias: bool) -> None:
    torch.manual_seed(0)
    model, x = positionwise(bias, nt.Tanh(), nt.CrossEntropyLoss())
    y = torch.randint(0, CLASSES, (SAMPLES,))
    a0, s0, a1, s1, z = forward(model, x, torch.tanh)
    losses = torch.nn.functional.cross_entropy(z, y, reduction="none")
    lin = model.linearize(x, y)
    found, means = (
        lin.kronecker_factors("empirical"),
        lin.kronecker_factors("empirical", means=["0"]),
    )
    for layer, a, s in (("0", a0, s0), ("2", a1, s1)):
        pair = found[layer]
        assert isinstance(pair, nt.KroneckerFactors)
        assert_close(pair.A, a_of(a, bias), f"A of {layer}")
        assert_close(pair.G, g_of(s, [losses]), f"G of {layer}")
    assert_close(means["0"].mean, a0.mean((0, 1)), "mean of the inputs")  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["kflr", "kfra"])
def test_exact_factors_of_a_linear_network_with_positions(kind: str) -> None:
    """Its J is one for all samples, B = 2I: the recursion is exact as well."""
    torch.manual_seed(0)
    model, x = positionwise(True, nt.LeakyReLU(1.0), nt.MSELoss())
    a0, s0, a1, s1, z = forward(model, x, lambda s: s)
    found = model.linearize(x, torch.rand(SAMPLES, CLASSES).double()).kronecker_factors(kind)
    columns = [math.sqrt(2.0) * z[:, k] for k in range(CLASSES)]
    for layer, a, s in (("0", a0, s0), ("2", a1, s1)):
        pair = found[layer]
        assert isinstance(pair, nt.KroneckerFactors)
        assert_close(pair.A, a_of(a, True), f"A of {layer}")
        assert_close(pair.G, g_of(s, columns), f"G of {layer}")


def test_a_block_at_positions_that_are_alike_is_that_of_one_position() -> None:
    """Where all positions see one input, A is that of one of them: Σ over positions is G's."""
    torch.manual_seed(0)
    model, _ = positionwise(True, nt.Tanh(), nt.CrossEntropyLoss())
    x = torch.randn(SAMPLES, WIDTH, dtype=torch.float64)
    lin = model.linearize(x.repeat(1, POSITIONS), torch.randint(0, CLASSES, (SAMPLES,)))
    pair = lin.kronecker_factors("empirical")["0"]
    assert isinstance(pair, nt.KroneckerFactors)
    assert_close(pair.A, a_of(x[:, None], True))
