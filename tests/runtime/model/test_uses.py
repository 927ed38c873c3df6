"""Factors of parameters that are taken in several ways, against dense ones from autograd."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from curvlinops import KFACLinearOperator
from torch import Tensor, nn

import newtriton as nt
from newtriton.compiler.graph import ops, scalar
from newtriton.compiler.graph.ir import N, Node, Op
from newtriton.compiler.language.network import Scope
from newtriton.runtime.curvatures.kronecker_block import KroneckerBlock
from tests.tolerances import assert_close

F64 = torch.float64
SAMPLES, T, D, OUT, K, V = 5, 4, 3, 6, 2, 7
Use = tuple[Tensor, Tensor]  # inputs and outputs of a product, N×T×D and N×T×O
See = Callable[[str, Tensor, Tensor], Tensor]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@dataclass(frozen=True)
class Written:
    """A layer that is written as a function."""

    function: Callable[[Node, Scope], Node]

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns what the function makes of x."""
        return self.function(x, scope)


def compiled(function: Callable[[Node, Scope], Node], shape: Any, loss: Any = None) -> nt.Model:
    return nt.compile(Written(function), shape, loss or nt.MSELoss(), dtype=F64, device="cpu")


def tanh(x: Node) -> Node:
    return ops.map_(scalar.tanh(scalar.var(0)), x)


def weight(scope: Scope, name: str, *shape: int) -> Node:
    return scope.parameter(name, shape, "default", (shape[-1], shape[0]))


def values(model: nt.Model) -> dict[str, Tensor]:
    """The parameters as leaves of autograd."""
    return {name: p.clone().requires_grad_() for name, p in model.named_parameters()}


def ones(a: Tensor) -> Tensor:
    return torch.cat([a, a.new_ones(*a.shape[:-1], 1)], -1)


def expected(uses: list[Use], loss: Tensor, bias: bool, sharing: str) -> tuple[Tensor, Tensor]:
    """A and G of all uses of a matrix, for the sum of the samples' losses."""
    inputs, gradients = [], []
    reduces = sharing == "reduce"
    for value, s in uses:
        (g,) = torch.autograd.grad(loss, s, retain_graph=True)
        a = value.detach().mean(1, keepdim=True) if reduces else value.detach()
        inputs.append(ones(a) if bias else a)
        gradients.append(g.sum(1, keepdim=True) if reduces else g)
    a, g = torch.cat(inputs, 1).flatten(0, 1), torch.cat(gradients, 1).flatten(0, 1)
    return a.T @ a / len(a), g.T @ g / SAMPLES


# --- sequences ------------------------------------------------------------------------------------


def rows(x: Node, w: Node, b: Node | None) -> Node:
    return ops.matmul(x, w, b, tb=True)


def flat(x: Node, w: Node, b: Node | None) -> Node:
    rows = ops.reshape(x, (N * T, x.shape[-1]))
    return ops.reshape(ops.matmul(rows, w, b, tb=True), (N, T, w.shape[0]))


def time_first(x: Node, w: Node, b: Node | None) -> Node:
    turned = ops.reshape(ops.transpose(x, (1, 0, 2)), (N * T, x.shape[-1]))
    s = ops.reshape(tanh(ops.matmul(turned, w, b, tb=True)), (T, N, w.shape[0]))
    return ops.transpose(s, (1, 0, 2))


def time_first_turned(x: Node, w: Node, b: Node | None) -> Node:
    """As simplification may leave it: features before the rows, and these not by sample."""
    turned = ops.reshape(ops.transpose(x, (2, 1, 0)), (x.shape[-1], N * T))
    s = ops.reshape(ops.matmul(turned, w, b, ta=True, tb=True), (T, N, w.shape[0]))
    return ops.transpose(s, (1, 0, 2))


def from_the_left(x: Node, w: Node, b: Node | None) -> Node:
    return ops.transpose(ops.matmul(w, ops.transpose(x, (0, 2, 1))), (0, 2, 1))


@pytest.mark.parametrize("sharing", ["expand", "reduce"])
@pytest.mark.parametrize("way", [rows, flat, time_first, time_first_turned, from_the_left])
def test_a_linear_layer_on_sequences(way: Any, sharing: str) -> None:
    bias = way is not from_the_left

    def net(x: Node, scope: Scope) -> Node:
        first = scope.child("0")
        b = weight(first, "bias", OUT) if bias else None
        s = way(ops.reshape(x, (N, T, D)), weight(first, "weight", OUT, D), b)
        return ops.matmul(
            tanh(ops.reshape(s, (N, T * OUT))), weight(scope, "head", K, T * OUT), tb=True
        )

    model = compiled(net, (T * D,))
    x, y = torch.randn(SAMPLES, T * D, dtype=F64), torch.rand(SAMPLES, K, dtype=F64)
    p = values(model)
    a = x.view(SAMPLES, T, D)
    s = a @ p["0.weight"].T + (p["0.bias"] if bias else 0.0)
    inner = s.tanh() if way is time_first else s
    loss = ((inner.flatten(1).tanh() @ p["head"].T - y) ** 2).sum()
    found: Any = model.linearize(x, y).kronecker_factors("empirical", sharing=sharing)["0"]
    big_a, g = expected([(a, s)], loss, bias, sharing)
    assert_close(found.A, big_a, "A")
    assert_close(found.G, g, "G")


class Sequence(nn.Module):
    """A perceptron on each of the positions, whose outputs are flattened or averaged."""

    def __init__(self, mean: bool, bend: bool) -> None:
        super().__init__()
        self.a, self.b, self.mean, self.bend = nn.Linear(D, OUT), nn.Linear(OUT, K), mean, bend

    def forward(self, x: Tensor) -> Tensor:
        s = self.a(x.unflatten(1, (T, D)))
        z = self.b(s.tanh() if self.bend else s)
        return z.mean(1) if self.mean else z.flatten(1)


def sequence(mean: bool, bend: bool) -> Callable[[Node, Scope], Node]:
    def net(x: Node, scope: Scope) -> Node:
        a, b = scope.child("a"), scope.child("b")
        s = rows(ops.reshape(x, (N, T, D)), weight(a, "weight", OUT, D), weight(a, "bias", OUT))
        z = rows(tanh(s) if bend else s, weight(b, "weight", K, OUT), weight(b, "bias", K))
        if mean:
            return ops.scale(ops.reduce_sum(z, (1,)), 1 / T)
        return ops.reshape(z, (N, T * K))

    return net


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("sharing", ["expand", "reduce"])
@pytest.mark.parametrize(("kind", "theirs"), [("empirical", "empirical"), ("kflr", "type-2")])
def test_factors_on_sequences_are_those_of_curvlinops(
    mean: bool, sharing: str, kind: str, theirs: str
) -> None:
    model, module = compiled(sequence(mean, True), (T * D,)), Sequence(mean, True).double()
    module.load_state_dict(model.state_dict())
    outputs = K if mean else T * K
    x, y = torch.randn(SAMPLES, T * D, dtype=F64), torch.rand(SAMPLES, outputs, dtype=F64)
    operator = KFACLinearOperator(
        module, nn.MSELoss(reduction="sum"), list(module.parameters()), [(x, y)],
        check_deterministic=False, fisher_type=theirs, kfac_approx=sharing,
        separate_weight_and_bias=False,
    )  # fmt: skip
    operator @ [torch.zeros_like(p) for p in module.parameters()]
    for name, ours in model.linearize(x, y).kronecker_factors(kind, sharing=sharing).items():
        assert isinstance(ours, nt.KroneckerFactors)
        assert_close(ours.A, operator._input_covariances[name], f"A of {name}")
        assert_close(SAMPLES * ours.G, operator._gradient_covariances[name], f"G of {name}")


def matrix(model: nt.Model, lin: nt.Linearization, names: list[str]) -> Tensor:
    """The Gauss–Newton matrix of parameters O×D, their columns one below the other."""
    ggn = torch.stack(
        [lin.data_product(e, "ggn") for e in torch.eye(model.params.numel()).double()]
    )
    at = model.unflatten(torch.arange(len(ggn)))
    both = torch.cat(
        [at[name].flatten(1) if at[name].dim() > 1 else at[name][:, None] for name in names], 1
    )
    order = both.T.flatten()
    return ggn[order][:, order]


@pytest.mark.parametrize(("mean", "sharing"), [(False, "expand"), (True, "reduce")])
def test_blocks_of_deep_linear_networks_are_exact(mean: bool, sharing: str) -> None:
    """Eschenhagen et al. 2023: a loss at each position, or one loss after their mean."""
    model = compiled(sequence(mean, False), (T * D,))
    y = torch.rand(SAMPLES, K if mean else T * K, dtype=F64)
    lin = model.linearize(torch.randn(SAMPLES, T * D, dtype=F64), y)
    for name, ours in lin.kronecker_factors("kflr", sharing=sharing).items():
        block = torch.kron(ours.A, ours.G)  # type: ignore[union-attr]
        assert_close(block, matrix(model, lin, [f"{name}.weight", f"{name}.bias"]), name)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    "window",
    [{"padding": 1, "stride": 2}, {"stride": (2, 1), "dilation": (1, 2), "padding": (0, 2)}],
)
def test_reduced_factors_of_a_convolution(window: dict[str, Any], groups: int) -> None:
    net = nt.Sequential(nt.Conv2d(4, (3, 2), groups=groups, **window), nt.Flatten(), nt.Linear(K))
    model = nt.compile(net, (2, 6, 7), nt.MSELoss(), dtype=F64, device="cpu")
    x, y = torch.randn(SAMPLES, 2, 6, 7, dtype=F64), torch.rand(SAMPLES, K, dtype=F64)
    p = values(model)
    s = nn.functional.conv2d(x, p["0.weight"], p["0.bias"], groups=groups, **window)
    loss = ((s.flatten(1) @ p["2.weight"].T + p["2.bias"] - y) ** 2).sum()
    patches = nn.functional.unfold(x, (3, 2), **window).mT.unflatten(2, (groups, -1))
    outputs = s.flatten(2).mT.unflatten(2, (groups, -1))
    found: Any = model.linearize(x, y).kronecker_factors("empirical", sharing="reduce")["0"]
    (g,) = torch.autograd.grad(loss, s)
    g = g.flatten(2).mT.unflatten(2, (groups, -1))
    assert outputs.shape == g.shape
    for i in range(groups):
        mean, total = ones(patches[:, :, i].mean(1)), g[:, :, i].sum(1)
        big_a, big_g = (m.reshape(-1, *m.shape[-2:])[i] for m in (found.A, found.G))
        assert_close(big_a, mean.T @ mean / SAMPLES, "A")
        assert_close(big_g, total.T @ total / SAMPLES, "G")


# --- several uses ---------------------------------------------------------------------------------


@pytest.mark.parametrize("sharing", ["expand", "reduce"])
def test_a_layer_that_is_applied_three_times_has_one_pair(sharing: str) -> None:
    def net(x: Node, scope: Scope) -> Node:
        w, b = weight(scope, "weight", D, D), weight(scope, "bias", D)
        h = ops.reshape(x, (N, T, D))
        for _ in range(3):
            h = tanh(rows(h, w, b))
        return ops.reshape(h, (N, T * D))

    model = compiled(net, (T * D,))
    x = torch.randn(SAMPLES, T * D, dtype=F64)
    y, p = torch.rand_like(x), values(model)
    h, uses = x.view(SAMPLES, T, D), []
    for _ in range(3):
        s = h @ p["weight"].T + p["bias"]
        uses.append((h, s))
        h = s.tanh()
    loss = ((h.flatten(1) - y) ** 2).sum()
    lin = model.linearize(x, y)
    found: Any = lin.kronecker_factors("empirical", sharing=sharing)[""]
    big_a, g = expected(uses, loss, True, sharing)
    assert_close(found.A, big_a, "A")
    assert_close(found.G, g, "G")
    mean: Any = lin.kronecker_factors("empirical", means=[""])[""]
    assert_close(mean.mean, torch.cat([a for a, _ in uses], 1).mean((0, 1)).detach(), "mean")


def test_weights_that_lie_inputs_by_outputs() -> None:
    def net(x: Node, scope: Scope) -> Node:
        s = ops.matmul(
            ops.reshape(x, (N, T, D)), weight(scope, "weight", D, OUT), weight(scope, "bias", OUT)
        )
        return ops.reshape(tanh(s), (N, T * OUT))

    model = compiled(net, (T * D,))
    x, y = torch.randn(SAMPLES, T * D, dtype=F64), torch.rand(SAMPLES, T * OUT, dtype=F64)
    p, a = values(model), x.view(SAMPLES, T, D)
    s = a @ p["weight"] + p["bias"]
    loss = ((s.tanh().flatten(1) - y) ** 2).sum()
    lin = model.linearize(x, y)
    found: Any = lin.kronecker_factors("empirical")[""]
    big_a, g = expected([(a, s)], loss, True, "expand")
    assert_close(found.A, big_a, "A")
    assert_close(found.G, g, "G")


@pytest.mark.parametrize("cut", ["rows", "columns"])
def test_weights_that_are_taken_in_parts(cut: str) -> None:
    """The parts are further positions, with zeros for what they do not take."""
    axis = 0 if cut == "rows" else 1
    shape = (2 * OUT, D) if axis == 0 else (OUT, 2 * D)

    def net(x: Node, scope: Scope) -> Node:
        w, size = weight(scope, "weight", *shape), shape[axis] // 2
        a = ops.reshape(x, (N, T, D))
        parts = [
            ops.make(Op.SLICE, w, axis=axis, start=i * size, stop=(i + 1) * size) for i in (0, 1)
        ]
        s, t = (ops.matmul(a, part, tb=True) for part in parts)
        return ops.reshape(ops.multiply(s, tanh(t)), (N, T * OUT))

    model = compiled(net, (T * D,))
    x, y = torch.randn(SAMPLES, T * D, dtype=F64), torch.rand(SAMPLES, T * OUT, dtype=F64)
    p, a = values(model), x.view(SAMPLES, T, D)
    s, t = (a @ part.T for part in p["weight"].chunk(2, axis))
    loss = ((torch.mul(s, t.tanh()).flatten(1) - y) ** 2).sum()
    found: Any = model.linearize(x, y).kronecker_factors("empirical")[""]
    pairs = [expected([use], loss, False, "expand") for use in ((a, s), (a, t))]
    if axis == 0:
        assert_close(found.A, pairs[0][0], "A")
        assert_close(found.G, torch.block_diag(*(g for _, g in pairs)), "G")
    else:
        assert_close(found.A, torch.block_diag(*(big_a / 2 for big_a, _ in pairs)), "A")
        assert_close(found.G, pairs[0][1] + pairs[1][1], "G")


# --- tables ---------------------------------------------------------------------------------------


def tokens(model: nt.Model) -> tuple[Tensor, dict[str, Tensor]]:
    return torch.randint(0, V - 1, (SAMPLES, T)), values(model)


def test_a_tables_inputs_are_the_diagonal_of_its_lookups() -> None:
    def net(x: Node, scope: Scope) -> Node:
        table = weight(scope, "weight", V, D)
        return ops.reshape(tanh(ops.make(Op.GATHER_ROWS, table, x)), (N, T * D))

    model = compiled(net, nt.InputSpec((T,), "int"))
    x, p = tokens(model)
    y = torch.rand(SAMPLES, T * D, dtype=F64)
    s = p["weight"][x]
    loss = ((s.tanh().flatten(1) - y) ** 2).sum()
    found: Any = model.linearize(x, y).kronecker_factors("empirical")[""]
    (g,) = torch.autograd.grad(loss, s)
    assert_close(found.A, x.flatten().bincount(minlength=V).double() / (SAMPLES * T), "A")
    assert_close(found.G, g.flatten(0, 1).T @ g.flatten(0, 1) / SAMPLES, "G")


@pytest.mark.parametrize("max_factor", [V, V - 1])
def test_a_table_that_is_tied_to_a_head_has_one_pair_on_the_heads_weights(max_factor: int) -> None:
    def net(x: Node, scope: Scope) -> Node:
        table = weight(scope, "weight", V, D)
        h = tanh(ops.make(Op.GATHER_ROWS, table, x))
        return ops.reshape(rows(h, table, weight(scope, "bias", V)), (N, T * V))

    model = compiled(net, nt.InputSpec((T,), "int"))
    x, p = tokens(model)
    y = torch.rand(SAMPLES, T * V, dtype=F64)
    e = p["weight"][x]
    h = e.tanh()
    z = h @ p["weight"].T + p["bias"]
    loss = ((z.flatten(1) - y) ** 2).sum()
    lin = model.linearize(x, y)
    found: Any = lin.kronecker_factors("empirical", max_factor=max_factor)
    assert found.keys() == {"", "bias"}
    big_a, big_g = expected([(h, z)], loss, False, "expand")
    _, of_lookups = expected([(e, e)], loss, False, "expand")
    counts = x.flatten().bincount(minlength=V).double() / (SAMPLES * T)
    assert_close(found[""].A, big_a + of_lookups, "A")
    vocabulary = big_g + torch.diag(counts)
    whole = max_factor == V
    assert_close(found[""].G, vocabulary if whole else vocabulary.diagonal(), "G")
    gradient = torch.autograd.grad(loss, z)[0].sum(1)
    assert_close(found["bias"].diagonal["bias"], gradient.square().mean(0), "bias")


def test_nothing_of_the_size_of_a_large_side_squared_is_in_the_graph() -> None:
    words = 300

    def net(x: Node, scope: Scope) -> Node:
        table = weight(scope, "weight", words, D)
        return ops.reshape(rows(ops.make(Op.GATHER_ROWS, table, x), table, None), (N, T * words))

    model = compiled(net, nt.InputSpec((T,), "int"))
    for kind in ("kfac", "empirical", "kflr"):
        graph = model.programs[True].factors(kind, max_factor=words - 1).graph
        assert not [n for n in graph.nodes() if list(n.shape).count(words) > 1 and N not in n.shape]


# --- transposed convolutions ----------------------------------------------------------------------


@pytest.mark.parametrize("sharing", ["expand", "reduce"])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_transposed_convolution_spreads_each_input_over_a_patch(
    groups: int, sharing: str
) -> None:
    """At each pixel a product gives the patch that is added to the image."""
    window = {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "groups": groups}
    kernel, size, inner, outer = (3, 2), (5, 5), 4, 2

    def net(x: Node, scope: Scope) -> Node:
        a = ops.transpose(ops.reshape(x, (N, inner, 3, 3)), (0, 2, 3, 1))
        w = scope.parameter(
            "weight", (inner, *kernel, outer // groups), "default", (1, 1), (0, 3, 1, 2)
        )
        s = ops.make(Op.CONV_INPUT_GRAD, a, w, size=size, **window)
        return ops.reshape(ops.transpose(tanh(s), (0, 3, 1, 2)), (N, outer * 25))

    model = compiled(net, (inner * 9,))
    x, y = torch.randn(SAMPLES, inner * 9, dtype=F64), torch.rand(SAMPLES, outer * 25, dtype=F64)
    p, a = values(model), x.view(SAMPLES, inner, 3, 3)
    s = nn.functional.conv_transpose2d(a, p["weight"], **window)
    loss = ((s.tanh().flatten(1) - y) ** 2).sum()
    (g,) = torch.autograd.grad(loss, s)
    window.pop("groups")
    patches = nn.functional.unfold(g, kernel, **window).unflatten(1, (groups, outer // groups, 6))
    patches = patches.permute(1, 0, 4, 3, 2).flatten(3)  # group, sample, position, (tap, channel)
    pixels = a.flatten(2).unflatten(1, (groups, -1)).permute(1, 0, 3, 2)
    if sharing == "reduce":
        pixels, patches = pixels.mean(2, keepdim=True), patches.sum(2, keepdim=True)
    pixels, patches = pixels.flatten(1, 2), patches.flatten(1, 2)
    lin = model.linearize(x, y)
    found: Any = lin.kronecker_factors("empirical", sharing=sharing)[""]
    assert_close(found.A.view(groups, 4 // groups, -1), pixels.mT @ pixels / pixels.shape[1], "A")
    assert_close(found.G.view(groups, 12 // groups, -1), patches.mT @ patches / SAMPLES, "G")


# --- spreads --------------------------------------------------------------------------------------


def test_parameters_that_are_copied_to_all_samples_have_the_squares_of_the_samples_gradients() -> (
    None
):
    """Class token, positions (from a table too), a scale used twice, a bias of one channel."""

    def net(x: Node, scope: Scope) -> Node:
        h = ops.reshape(x, (N, T, D))
        token = ops.broadcast(weight(scope, "token", 1, D), (N, 1, D), (0,))
        h = ops.make(Op.CONCAT, token, h, axis=1)
        positions = ops.make(
            Op.SLICE, weight(scope, "positions", T + 3, D), axis=0, start=1, stop=T + 2
        )
        scale = ops.map_(scalar.var(0) + 1.0, weight(scope, "scale", D))
        h = ops.total([h, ops.broadcast(positions, (N, T + 1, D), (0,))])
        for _ in range(2):
            h = tanh(ops.multiply(h, ops.broadcast(scale, h.shape, (0, 1))))
        flat = ops.reshape(h, (N * (T + 1), D))
        shift = ops.broadcast(
            ops.transpose(weight(scope, "shift", D, 1), (1, 0)), (N * (T + 1), 1, D), (0,)
        )
        flat = ops.total([flat, ops.reshape(shift, flat.shape)])
        return ops.reshape(tanh(flat), (N, (T + 1) * D))

    def forward(p: dict[str, Tensor], x: Tensor) -> Tensor:
        h = torch.cat([p["token"], x.view(T, D)]) + p["positions"][1 : T + 2]
        for _ in range(2):
            h = (h * (p["scale"] + 1)).tanh()
        return (h + p["shift"].T).tanh().flatten()

    model = compiled(net, (T * D,))
    x, y = torch.randn(SAMPLES, T * D, dtype=F64), torch.rand(SAMPLES, (T + 1) * D, dtype=F64)
    p = values(model)
    names = list(p)
    gradients = [
        torch.autograd.grad(((forward(p, row) - t) ** 2).sum(), [*p.values()])
        for row, t in zip(x, y, strict=True)
    ]
    lin = model.linearize(x, y)
    found: Any = lin.kronecker_factors("empirical")[""]
    assert found.diagonal.keys() == p.keys()
    for name, parts in zip(names, zip(*gradients, strict=True), strict=True):
        assert_close(found.diagonal[name], torch.stack(parts).square().mean(0), name)
    exact: Any = lin.kronecker_factors("kflr")[""]
    ggn = torch.stack([lin.data_product(e, "ggn") for e in torch.eye(len(model.params)).double()])
    for name, part in model.unflatten(ggn.diagonal()).items():
        assert_close(exact.diagonal[name], part, name)
    drawn: Any = lin.kronecker_factors("kfac", 20_000, torch.Generator().manual_seed(0))[""]
    for name, part in exact.diagonal.items():
        assert (drawn.diagonal[name] - part).norm() < 0.05 * part.norm()


# --- moments of samples ---------------------------------------------------------------------------


def pixels(x: Node, w: Node, b: Node | None) -> Node:
    image = ops.reshape(x, (N, T // 2, 2, x.shape[-1]))
    return ops.reshape(ops.matmul(image, w, b, tb=True), (N, T, w.shape[0]))


def untransposed(x: Node, w: Node, b: Node | None) -> Node:
    return ops.matmul(x, ops.transpose(w, (1, 0)), b)


def twice(x: Node, w: Node, b: Node | None) -> Node:
    return ops.total([rows(x, w, b), tanh(rows(tanh(x), w, b))])


@pytest.mark.parametrize(
    "way", [rows, flat, time_first, time_first_turned, pixels, untransposed, twice]
)
def test_moments_are_of_the_gradients_of_single_samples(way: Any) -> None:
    def net(x: Node, scope: Scope) -> Node:
        s = way(ops.reshape(x, (N, T, D)), weight(scope, "w", OUT, D), weight(scope, "b", OUT))
        return ops.reshape(tanh(s), (N, T * OUT))

    model = compiled(net, (T * D,))
    x, y = torch.randn(SAMPLES, T * D, dtype=F64), torch.rand(SAMPLES, T * OUT, dtype=F64)
    found: Any = model.linearize(x, y).kronecker_factors("empirical", per_sample=True)[""]
    alone = [model.linearize(x[[i]], y[[i]]).gradient for i in range(SAMPLES)]
    of_samples = [KroneckerBlock(found.described).read(model.layout.views(g)) for g in alone]
    basis_a, basis_g = (torch.eye(len(side), dtype=F64) for side in found.pair.tensors.values())
    expected = torch.stack(of_samples).square().mean(0)
    assert_close(found.second_moments(basis_a, basis_g), expected)
