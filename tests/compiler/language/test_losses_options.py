"""Losses with options: PyTorch's values and derivatives, B, its roots and drawn adjoints."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

import newtriton as nt
from newtriton.compiler.graph import ops
from newtriton.compiler.graph.ir import Node
from tests.positions import F64, K, Oracle, T, compiled, labels
from tests.tolerances import assert_close


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
@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("loss", [OPTIONS[2], OPTIONS[3]], ids=repr)
def test_fused_kernels_compute_the_same(loss: nt.Loss, sequences: bool):
    y, last = labels(loss, sequences, 0), "5" if sequences else "2"
    found = []
    for backend in ("aten", "triton"):
        model, _, x = compiled(loss, sequences, backend=backend, dtype=torch.float32)
        lin = model.linearize(x.float(), y.float() if y.is_floating_point() else y)
        v = torch.linspace(-1, 1, model.params.numel())
        options = {"layers": [last], "generator": torch.Generator().manual_seed(0)}
        factors = [
            lin.kronecker_factors(kind, 2, **options)[last].G  # type: ignore[union-attr]
            for kind in ("kfac", "kflr")
        ]
        found.append([lin.loss, lin.gradient, lin.hvp(v), lin.ggnvp(v), *factors])
    for ours, expected in zip(*found[::-1], strict=True):
        assert_close(ours, expected)
