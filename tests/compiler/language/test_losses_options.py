"""Losses with options: PyTorch's values and derivatives, B, its roots and drawn adjoints."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

import newtriton as nt
from newtriton.compiler.curvature.roots import root_copies
from newtriton.compiler.graph import ops
from newtriton.compiler.graph.ir import N, Node
from newtriton.compiler.language.network import Scope
from tests.tolerances import assert_close

F64 = torch.float64
T, K = 3, 3  # positions of a sequence, and outputs of each


class Split:
    """N×(T·2) → N×T×2."""

    def build(self, x: Node, scope: Scope) -> Node:
        return ops.reshape(x, (N, T, 2))


class Rows:
    """A linear layer along the last axis."""

    def __init__(self, out: int) -> None:
        self.out = out

    def build(self, x: Node, scope: Scope) -> Node:
        fans = x.shape[-1], self.out
        weight = scope.parameter("weight", (self.out, x.shape[-1]), "default", fans)
        return ops.matmul(x, weight, scope.parameter("bias", (self.out,), "zeros", fans), tb=True)


class Mixed(Rows):
    """A linear layer along the positions, so that these meet."""

    def build(self, x: Node, scope: Scope) -> Node:
        return ops.transpose(super().build(ops.transpose(x, (0, 2, 1)), scope), (0, 2, 1))


class TorchMixed(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


def compiled(loss: nt.Loss, sequences: bool, outputs: int = K, **options: Any):
    """Returns a model, the same in PyTorch, and inputs of six samples."""
    torch.manual_seed(0)
    if sequences:
        net = nt.Sequential(Split(), Rows(4), nt.Tanh(), Mixed(T), nt.Tanh(), Rows(outputs))
        module = nn.Sequential(
            nn.Unflatten(1, (T, 2)), nn.Linear(2, 4), nn.Tanh(), TorchMixed(T, T), nn.Tanh(),
            nn.Linear(4, outputs),
        )  # fmt: skip
    else:
        net = nt.Sequential(nt.Linear(4), nt.Tanh(), nt.Linear(outputs))
        module = nn.Sequential(nn.Linear(2 * T, 4), nn.Tanh(), nn.Linear(4, outputs))
    options = {"dtype": F64, "backend": "aten", "device": "cpu", **options}
    model = nt.compile(net, (2 * T,), loss, **options)
    model.load_state_dict(module.double().state_dict())
    return model, module, torch.randn(6, 2 * T, dtype=F64)


def torch_loss(loss: nt.Loss, z: Tensor, y: Tensor) -> Tensor:
    """Returns the mean loss by PyTorch's own function."""
    if isinstance(loss, nt.Scaled):
        return loss.c * torch_loss(loss.loss, z, y)
    if isinstance(loss, nt.CrossEntropyLoss):
        weight = None if loss.weight is None else torch.tensor(loss.weight, dtype=z.dtype)
        ignored = -100 if loss.ignore_index is None else loss.ignore_index
        return functional.cross_entropy(
            z.reshape(-1, z.shape[-1]), y.reshape(-1), weight, ignore_index=ignored,
            label_smoothing=loss.label_smoothing,
        )  # fmt: skip
    if isinstance(loss, nt.BCEWithLogitsLoss):
        weight = None if loss.pos_weight is None else torch.tensor(loss.pos_weight, dtype=z.dtype)
        each = functional.binary_cross_entropy_with_logits(
            z, y, pos_weight=weight, reduction="none"
        )
        return each.sum() / len(z)
    return functional.mse_loss(z, y, reduction="sum") / len(z)


class Oracle:
    """Dense derivatives by autograd at a linearization."""

    def __init__(
        self, model: nt.Model, module: nn.Module, loss: nt.Loss, x: Tensor, y: Tensor
    ) -> None:
        def output(flat: Tensor) -> Tensor:
            return torch.func.functional_call(module, model.unflatten(flat), (x,))

        def h(flat: Tensor) -> Tensor:
            return torch_loss(loss, output(flat), y)

        at = model.params.clone()
        self.loss, self.gradient = h(at), torch.func.grad(h)(at)
        self.hessian = torch.func.hessian(h)(at)
        z = output(at).detach()
        self.b = torch.func.hessian(lambda rows: torch_loss(loss, rows.view_as(z), y))(z.flatten())
        jacobian = torch.func.jacrev(lambda flat: output(flat).flatten())(at)
        self.ggn = jacobian.mT @ self.b @ jacobian


@st.composite
def losses(draw: st.DrawFn) -> nt.Loss:
    """Draws losses with options."""
    kind = draw(st.sampled_from(["ce", "ce", "bce", "mse"]))
    weights = st.lists(st.sampled_from([0.0, 0.25, 1.0, 3.5]), min_size=K, max_size=K)
    loss: nt.Loss = nt.MSELoss()
    if kind == "ce":
        weight = draw(st.none() | weights.filter(any))
        ignored = draw(st.sampled_from([None, -100, 1, 7]))
        smoothing = draw(st.sampled_from([0.0, 0.1, 1.0]))
        loss = nt.CrossEntropyLoss(weight, ignore_index=ignored, label_smoothing=smoothing)
    elif kind == "bce":
        loss = nt.BCEWithLogitsLoss(pos_weight=draw(st.none() | st.just(2.5) | weights))
    return nt.Scaled(loss, 3.0) if draw(st.booleans()) else loss


def labels(loss: nt.Loss, sequences: bool, seed: int) -> Tensor:
    """Returns random labels of six samples, some of which do not count where a loss has it so."""
    generator = torch.Generator().manual_seed(seed)
    shape = (6, T) if sequences else (6,)
    plain = loss.loss if isinstance(loss, nt.Scaled) else loss
    if not isinstance(plain, nt.CrossEntropyLoss):
        return torch.rand(*shape, K, dtype=F64, generator=generator)
    y = torch.randint(0, K, shape, generator=generator)
    if plain != nt.CrossEntropyLoss() or sequences:
        none = -100 if plain.ignore_index is None else plain.ignore_index
        y.view(-1)[[1, 4]] = none
    counted = [k for k, w in enumerate(plain.weight or (1.0,) * K) if w and k != plain.ignore_index]
    y.view(-1)[0] = counted[0] if counted else 0
    return y


@settings(max_examples=20, deadline=None)
@given(losses(), st.booleans(), st.integers(0, 99))
def test_everything_is_pytorchs(loss: nt.Loss, sequences: bool, seed: int):
    model, module, x = compiled(loss, sequences)
    y = labels(loss, sequences, seed)
    oracle = Oracle(model, module, loss, x, y)
    if not oracle.loss.isfinite():
        with pytest.raises(nt.NewtritonError, match="no label of the batch counts"):
            model.linearize(x, y)
        return
    lin, vs = model.linearize(x, y), torch.randn(2, model.params.numel(), dtype=F64)
    assert_close(lin.loss, oracle.loss)
    assert_close(model.loss(x, y), oracle.loss)
    assert_close(lin.gradient, oracle.gradient)
    for v in vs:
        assert_close(lin.hvp(v), oracle.hessian @ v)
        assert_close(lin.ggnvp(v), oracle.ggn @ v)
        assert_close(lin.ggnvp(v, "stored-jacobian"), oracle.ggn @ v)
    assert_close(lin.quadratic_forms(list(vs)), vs @ oracle.hessian @ vs.mT)
    assert_close(lin.quadratic_forms(list(vs), "ggn"), vs @ oracle.ggn @ vs.mT)


WEIGHTS = torch.tensor([0.25, 2.0, 1.0])
OPTIONS = [
    *(nt.CrossEntropyLoss(WEIGHTS), nt.CrossEntropyLoss(label_smoothing=0.2, ignore_index=1)),
    nt.CrossEntropyLoss(WEIGHTS, label_smoothing=0.2, ignore_index=1),
    *(nt.BCEWithLogitsLoss(pos_weight=WEIGHTS), nt.MSELoss()),
    nt.Scaled(nt.CrossEntropyLoss(WEIGHTS, label_smoothing=0.2), 100.0),
    nt.Scaled(nt.BCEWithLogitsLoss(pos_weight=4), 0.01),
]


def sums_of_blocks(matrix: Tensor) -> Tensor:
    """Returns the sum of the K×K blocks on the diagonal, one for each row of outputs."""
    return matrix.unflatten(0, (-1, K)).unflatten(2, (-1, K)).diagonal(dim1=0, dim2=2).sum(-1)


@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("loss", OPTIONS, ids=repr)
def test_roots_and_drawn_adjoints_stand_for_b(loss: nt.Loss, sequences: bool):
    """The last layer's G is the sum of the blocks of B over rows, of both kinds."""
    model, module, x = compiled(loss, sequences)
    y = labels(loss, sequences, 0)
    last, lin = "5" if sequences else "2", model.linearize(x, y)
    expected = sums_of_blocks(Oracle(model, module, loss, x, y).b)
    root = lin.kronecker_factors("kflr", layers=[last])[last].G  # type: ignore[union-attr]
    assert_close(root, expected)
    drawn = lin.kronecker_factors("kfac", 20_000, torch.Generator().manual_seed(0), layers=[last])
    error = (drawn[last].G - expected).abs().max() / expected.abs().max()  # type: ignore[union-attr]
    assert error < 0.03
    if not sequences:
        recursive = lin.kronecker_factors("kfra", layers=[last])[last].G  # type: ignore[union-attr]
        whole = loss.loss if isinstance(loss, nt.Scaled) else loss
        diagonal = whole.separable
        assert_close(recursive, expected.diagonal().diag() if diagonal else expected)


@pytest.mark.parametrize("loss", [OPTIONS[2], OPTIONS[3]], ids=repr)
def test_columns_of_a_root_are_apart_where_positions_meet(loss: nt.Loss):
    """With one sample and frozen activations the block of a layer is exact: JᵀBJ = ΣĀ⊗G."""
    model, module, x = compiled(loss, sequences=True)
    y = labels(loss, True, 0)
    lin, traced = model.linearize(x, y), model.programs[True].traced
    assert root_copies(traced) == T * K
    adjoint = lin.kronecker_factors("kflr", layers=["1"])["1"].G  # type: ignore[union-attr]
    at = model.unflatten(torch.arange(model.params.numel()))["1.bias"]
    oracle = Oracle(model, module, loss, x, y)
    pulled = torch.zeros(4, 4, dtype=F64)
    states = module[:2](x)  # N×T×4: what the first layer gives

    def rest(s: Tensor) -> Tensor:
        return module[2:](s).flatten()

    jacobian = torch.autograd.functional.jacobian(rest, states).reshape(-1, 6 * T, 4)
    for position in range(6 * T):
        j = jacobian[:, position]
        pulled += j.mT @ oracle.b @ j
    assert_close(adjoint, pulled)
    assert at.numel() == 4


@pytest.mark.parametrize("loss", OPTIONS[:4], ids=repr)
@pytest.mark.parametrize("kind", ["kfac", "empirical"])
def test_second_moments_of_samples_are_weighed_alike(loss: nt.Loss, kind: str):
    """In the basis of unit vectors, E[(∇W)²] of a linear layer on N×K is M times a sum."""
    model, _, x = compiled(loss, sequences=False)
    y = labels(loss, False, 0)
    lin = model.linearize(x, y)
    seeded = torch.Generator().manual_seed(0)
    found = lin.kronecker_factors(kind, 1, seeded, layers=["2"], per_sample=True)["2"]
    moments = found.second_moments(torch.eye(5, dtype=F64), torch.eye(K, dtype=F64))  # type: ignore[union-attr]
    bias = moments[:, -1]  # its inputs are 1
    assert_close(bias, found.pair.G.diagonal())  # type: ignore[union-attr]


# --- labels that count ---------------------------------------------------------------------------


@pytest.mark.parametrize("loss", OPTIONS[:3], ids=repr)
@pytest.mark.parametrize("sequences", [False, True])
def test_a_batch_in_which_nothing_counts_is_an_error_and_nothing_is_lost(
    loss: nt.CrossEntropyLoss, sequences: bool
):
    model, _, x = compiled(loss, sequences)
    none = loss.ignored(model.programs[True].traced.z)
    y = torch.full((6, T) if sequences else (6,), none)  # type: ignore[arg-type]
    optimizer, params = nt.FITRE(model), model.params.clone()
    calls = [
        *(lambda: model.loss(x, y), lambda: model.objective(x, y), lambda: model.gradient(x, y)),
        *(lambda: model.linearize(x, y), lambda: optimizer.step(x, y)),
    ]
    for call in calls:
        with pytest.raises(nt.NewtritonError, match="no label of the batch counts"):
            call()
    assert torch.equal(model.params, params)


def test_a_class_of_weight_zero_does_not_count():
    model, _, x = compiled(nt.CrossEntropyLoss([1.0, 0.0, 2.0]), sequences=False)
    with pytest.raises(nt.NewtritonError, match="no label of the batch counts"):
        model.linearize(x, torch.ones(6, dtype=torch.int64))


def test_what_is_ignored_may_be_anything_finite():
    model, _, x = compiled(nt.CrossEntropyLoss(ignore_index=-1), sequences=False)
    y = torch.tensor([0, 1, -1, 2, 0, 1])
    before = model.linearize(x, y)
    x[2] = 1e30
    after = model.linearize(x, y)
    assert_close(after.loss, before.loss)
    assert_close(after.gradient, before.gradient)


def test_labels_that_pytorch_ignores_are_refused_where_all_have_to_count():
    model, _, x = compiled(nt.CrossEntropyLoss(), sequences=False)
    y = torch.tensor([0, 1, -100, 2, 0, 1])
    hint = r"label -100 is out of range.*CrossEntropyLoss\(ignore_index=-100\) leaves it out"
    with pytest.raises(nt.NewtritonError, match=hint):
        model.linearize(x, y)


def test_other_labels_are_out_of_range_beside_those_that_are_ignored():
    model, _, x = compiled(nt.CrossEntropyLoss(ignore_index=-1), sequences=False)
    with pytest.raises(nt.NewtritonError, match=r"label 3 is out of range"):
        model.linearize(x, torch.tensor([0, -1, 3, 2, 0, 1]))
    with pytest.raises(nt.NewtritonError, match=r"label -2 is out of range"):
        model.linearize(x, torch.tensor([0, -1, -2, 2, 0, 1]))


FAULTS = [
    (lambda: nt.CrossEntropyLoss(3), "weight has 1 numbers, the network 3 outputs"),
    (lambda: nt.CrossEntropyLoss([1.0, 2.0]), "weight has 2 numbers, the network 3 outputs"),
    (lambda: nt.CrossEntropyLoss([1.0, -1.0, 2.0]), r"weight\[1\] is -1.0: give a number ≥ 0"),
    (lambda: nt.CrossEntropyLoss([1.0, math.nan, 2.0]), r"weight\[1\] is nan"),
    (lambda: nt.CrossEntropyLoss("balanced"), "weight is 'balanced': give a vector"),  # type: ignore[arg-type]
    (lambda: nt.CrossEntropyLoss(ignore_index=0.5), "ignore_index is 0.5"),  # type: ignore[arg-type]
    (lambda: nt.CrossEntropyLoss(label_smoothing=1.5), "label_smoothing is 1.5"),
    (lambda: nt.BCEWithLogitsLoss(pos_weight=[1.0, 2.0]), "pos_weight has 2 numbers"),
    (lambda: nt.BCEWithLogitsLoss(pos_weight=-1.0), r"pos_weight\[0\] is -1.0"),
]


@pytest.mark.parametrize(("loss", "message"), FAULTS, ids=[m for _, m in FAULTS])
def test_options_that_do_not_fit_are_refused(loss: Any, message: str):
    with pytest.raises(nt.NewtritonError, match=message):
        compiled(loss(), sequences=False)


# --- labels as numbers, outputs of any shape -----------------------------------------------------


@pytest.mark.parametrize("loss", [nt.MSELoss(), nt.BCEWithLogitsLoss(pos_weight=2.0)], ids=repr)
@pytest.mark.parametrize("sequences", [False, True])
def test_one_output_goes_towards_its_labels(loss: nt.Loss, sequences: bool):
    model, module, x = compiled(loss, sequences, outputs=1)
    shape = (6, T) if sequences else (6,)
    y = torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(1))
    expected = torch_loss(loss, module(x), y.double().unsqueeze(-1))
    assert_close(model.loss(x, y), expected.detach())
    threshold = 0.5 if isinstance(loss, nt.MSELoss) else 0.0
    classes = model.classes(x)
    assert classes.shape == y.shape
    assert torch.equal(classes, (module(x)[..., 0] > threshold).long())
    _, accuracy = nt.evaluate(model, [(x, y)])
    assert accuracy == pytest.approx(float((classes == y).double().mean()))


def test_one_output_decides_between_the_labels_that_there_are():
    loss = nt.Criterion(lambda z, y: nt.scalar.softplus(-z * y), values=(-1, 1), convex=True)
    model, module, x = compiled(loss, sequences=False, outputs=1)
    y = torch.where(module(x)[:, 0] > 0, 1, -1)
    assert torch.equal(model.classes(x), y)
    assert nt.evaluate(model, [(x, y)])[1] == 1.0


AS_NUMBERS = r"of shape \(6, 3\): use y.to\(torch.float64\) for numbers"
TARGETS = [
    (torch.zeros(6, K, dtype=torch.int64), f"torch.int64 {AS_NUMBERS}"),
    (torch.zeros(6, K, dtype=torch.bool), f"torch.bool {AS_NUMBERS}"),
    (torch.zeros(6, 2), r"takes labels of torch.float64"),
]


@pytest.mark.parametrize(("y", "message"), TARGETS, ids=[m for _, m in TARGETS])
def test_targets_that_are_no_floats_are_named(y: Tensor, message: str):
    model, _, x = compiled(nt.MSELoss(), sequences=False)
    with pytest.raises(nt.NewtritonError, match=message):
        model.linearize(x, y)


class Squeezed:
    """Linear(1) without its axis: N numbers."""

    def build(self, x: Node, scope: Scope) -> Node:
        return ops.reshape(scope.build("body", nt.Linear(1), x), (N,))


def test_outputs_may_be_one_number_a_sample():
    x, y = torch.randn(6, 4, dtype=F64), torch.randn(6, dtype=F64)
    model = nt.compile(Squeezed(), (4,), nt.MSELoss(), dtype=F64)
    state = model.state_dict()
    z = (x @ state["body.weight"].mT + state["body.bias"])[:, 0]
    lin = model.linearize(x, y)
    assert_close(lin.outputs, z)
    assert_close(lin.loss, functional.mse_loss(z, y))
    assert_close(model.loss(x, torch.ones(6, dtype=torch.int64)), (z - 1).square().mean())
    assert torch.equal(model.classes(x), (z > 0.5).long())
    assert torch.isfinite(lin.kronecker_factors("kflr")["body"].G).all()  # type: ignore[union-attr]


@pytest.mark.parametrize("weight", [None, [0.5, 2.0, 1.0]])
def test_images_are_classified_at_each_pixel(weight: list[float] | None):
    """As PyTorch has it, with the classes on the axis of channels."""
    loss = nt.CrossEntropyLoss(weight, ignore_index=1)
    model = nt.compile(nt.Conv2d(3, 3, padding=1), (2, 4, 5), loss, dtype=F64)
    conv = nn.Conv2d(2, 3, 3, padding=1).double()
    model.load_state_dict(conv.state_dict())
    x, y = torch.randn(4, 2, 4, 5, dtype=F64), torch.randint(0, 3, (4, 4, 5))
    given = None if weight is None else torch.tensor(weight, dtype=F64)
    expected = functional.cross_entropy(conv(x), y, given, ignore_index=1)
    lin = model.linearize(x, y)
    assert_close(lin.outputs, conv(x).detach())
    assert_close(lin.loss, expected.detach())
    (gradient,) = torch.autograd.grad(expected, [conv.bias])  # type: ignore[list-item]
    assert_close(model.unflatten(lin.gradient)["bias"], gradient)
    assert torch.equal(model.classes(x), conv(x).argmax(1))
    _, accuracy = nt.evaluate(model, [(x, y)])
    counts = y != 1
    right = (conv(x).argmax(1) == y)[counts].double().mean()
    assert accuracy == pytest.approx(float(right))
    assert lin.hides(0.0)


def test_errors_of_images_against_images():
    model = nt.compile(nt.Conv2d(3, 3, padding=1), (2, 4, 5), nt.MSELoss(), dtype=F64)
    conv = nn.Conv2d(2, 3, 3, padding=1).double()
    model.load_state_dict(conv.state_dict())
    x, y = torch.randn(4, 2, 4, 5, dtype=F64), torch.randn(4, 3, 4, 5, dtype=F64)
    expected = (conv(x) - y).square().sum() / 4
    (gradient,) = torch.autograd.grad(expected, [conv.weight])
    lin = model.linearize(x, y)
    assert_close(lin.loss, expected.detach())
    assert_close(model.unflatten(lin.gradient)["weight"], gradient)
    hot = torch.randint(0, 3, (4, 4, 5))
    one_hot = functional.one_hot(hot, 3).permute(0, 3, 1, 2).double()
    assert_close(model.loss(x, hot), model.loss(x, one_hot))


def test_a_network_that_ends_in_an_image_is_told_to_flatten_it():
    model = nt.compile(nt.Conv2d(3, 3, padding=1), (2, 4, 5), nt.CrossEntropyLoss(), dtype=F64)
    x = torch.randn(4, 2, 4, 5, dtype=F64)
    with pytest.raises(nt.NewtritonError, match=r"of shape \(4, 4, 5\), got .*Flatten\(\)"):
        model.linearize(x, torch.zeros(4, dtype=torch.int64))


def test_classes_of_sequences_lie_last():
    model, _, x = compiled(nt.CrossEntropyLoss(), sequences=True, outputs=2)
    with pytest.raises(nt.NewtritonError, match=r"classes lie last.*z.movedim\(1, -1\)"):
        model.linearize(x, torch.zeros(6, 2, dtype=torch.int64))


class Focal(nt.Loss):
    root = "clip"

    def losses(self, z: Node, y: Node) -> Node:
        ce = nt.scalar.var(0)
        miss = 1 - nt.scalar.exp(-ce)
        return ops.map_(miss * miss * ce, nt.CrossEntropyLoss(WEIGHTS).losses(z, y))


class Counted(Focal):
    def counts(self, z: Node, y: Node) -> Node | None:
        return nt.CrossEntropyLoss(WEIGHTS).counts(z, y)


@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("loss", [Focal(), Counted()], ids=repr)
def test_a_users_own_loss_on_weighted_classes(loss: nt.Loss, sequences: bool):
    model, module, x = compiled(loss, sequences)
    y = torch.randint(0, K, (6, T) if sequences else (6,))
    weight, rows, flat = WEIGHTS.double(), module(x).reshape(-1, K), y.reshape(-1)
    ce = functional.cross_entropy(rows, flat, weight, reduction="none")
    total = weight[flat].sum() if isinstance(loss, Counted) else len(flat)
    expected = ((1 - torch.exp(-ce)) ** 2 * ce).sum() / total
    lin = model.linearize(x, y)
    assert_close(lin.loss, expected.detach())
    gradients = torch.autograd.grad(expected, [*module.parameters()])
    names = [name for name, _ in module.named_parameters()]
    assert_close(lin.gradient, model.flatten(dict(zip(names, gradients, strict=True))))
    v = torch.linspace(-1, 1, model.params.numel(), dtype=F64)
    assert_close(lin.quadratic_forms([v], "ggn")[0, 0], v @ lin.ggnvp(v))


# --- training ------------------------------------------------------------------------------------


METHODS = {
    "FITRE": nt.FITRE,
    "KFLR": nt.KFLR,
    "NewtonCG": lambda model: nt.NewtonCG(model, sample=0.9),
    "EKFAC": lambda model: nt.SecondOrder(model, "ekfac", "eigen"),
    "L-BFGS": lambda model: nt.TorchOptimizer(model, torch.optim.LBFGS),
}


@pytest.mark.parametrize("loss", [*OPTIONS[:4], nt.CrossEntropyLoss()], ids=repr)
@pytest.mark.parametrize("method", METHODS)
def test_the_loss_falls(loss: nt.Loss, method: str):
    model, _, x = compiled(loss, sequences=False)
    y = labels(loss, False, 0)
    if loss == nt.CrossEntropyLoss():
        y = y.clamp(0)
    optimizer, first = METHODS[method](model), model.objective(x, y)
    for _ in range(10):
        optimizer.step(x, y)
    assert model.objective(x, y) < 0.9 * first


@pytest.mark.interpreter
@pytest.mark.parametrize("loss", [OPTIONS[2], OPTIONS[3]], ids=repr)
def test_fused_kernels_compute_the_same(loss: nt.Loss):
    y = labels(loss, False, 0)
    found = []
    for backend in ("aten", "triton"):
        model, _, x = compiled(loss, False, backend=backend, dtype=torch.float32)
        lin = model.linearize(x.float(), y.float() if y.is_floating_point() else y)
        v = torch.linspace(-1, 1, model.params.numel())
        factors = [
            lin.kronecker_factors(kind, 2, torch.Generator().manual_seed(0))["2"].G  # type: ignore[union-attr]
            for kind in ("kfac", "kflr")
        ]
        found.append([lin.loss, lin.gradient, lin.hvp(v), lin.ggnvp(v), *factors])
    for ours, expected in zip(*found[::-1], strict=True):
        assert_close(ours, expected)
