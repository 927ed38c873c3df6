"""A batch in pieces against the batch whole: every value, and how many passes each takes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import newtriton as nt
from newtriton.compiler.curvature.factors import KINDS
from newtriton.compiler.graph import ops
from newtriton.compiler.graph.ir import Node
from newtriton.compiler.graph.scalar import var
from newtriton.compiler.language.network import Scope
from newtriton.runtime.model.linearization import Linearization
from newtriton.runtime.pieces.linearized import LinearizedPieces

from ...tolerances import relative_error
from .cases import CASES, Case, mlp

EXACT = 1e-12
WITHOUT_JACOBIAN = [CASES[n] for n in ("sequences", "sequences, some ignored", "tied")]
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def both(case: Case, samples: int = 8, size: int = 3) -> tuple[Linearization, LinearizedPieces]:
    """The batch whole and in pieces, the last of which is smaller."""
    model, (x, y) = case.model(), case.batch(samples)
    whole = model.linearize(x, y)
    with model.dropout.kept():
        return whole, LinearizedPieces(model, x, y, size)


def direction(lin: Linearization, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(lin.model.layout.numel, generator=generator, dtype=torch.float64)


@cases
def test_loss_gradient_and_outputs_are_those_of_the_batch(case: Case) -> None:
    whole, pieces = both(case)
    assert pieces.objective == pytest.approx(whole.objective, rel=EXACT)
    assert (pieces.batch, pieces.count) == (whole.batch, whole.count)
    assert relative_error(pieces.gradient, whole.gradient) < EXACT
    assert relative_error(pieces.outputs, whole.outputs) < EXACT
    assert pieces.loss.dtype == whole.loss.dtype
    assert pieces.hides(1e-18) and not pieces.hides(1.0)


CALLS: dict[str, Callable[[Linearization, Tensor, Tensor], Tensor]] = {
    "hvp": lambda lin, v, w: lin.hvp(v),
    "ggnvp": lambda lin, v, w: lin.ggnvp(v),
    "stored": lambda lin, v, w: lin.ggnvp(v, "stored-jacobian"),
    "hessian by layer": lambda lin, v, w: lin.data_product(v, by_layer=True),
    "ggn by layer": lambda lin, v, w: lin.data_product(v, "ggn", by_layer=True),
    "forms": lambda lin, v, w: lin.quadratic_forms([v, w]),
    "ggn forms": lambda lin, v, w: lin.quadratic_forms([v, w], "ggn"),
    "mean": lambda lin, v, w: lin.mean(lambda one: one.gradient),
}


@cases
def test_products_and_forms_are_those_of_the_batch(case: Case) -> None:
    whole, pieces = both(case)
    v, w = direction(whole, 0), direction(whole, 1)
    for name, call in CALLS.items():
        if name == "stored" and case in WITHOUT_JACOBIAN:
            continue
        before = pieces.passes
        assert relative_error(call(pieces, v, w), call(whole, v, w)) < EXACT, name
        assert pieces.passes - before == (name != "mean"), name


@pytest.mark.parametrize("curvature", ["hessian", "ggn"])
def test_forms_of_several_spans_take_one_pass(curvature: str) -> None:
    whole, pieces = both(CASES["images"])
    spans = [[direction(whole, i) for i in span] for span in ((0, 1), (2,), (3, 4, 0))]
    before = pieces.passes
    found = pieces.forms_of_each(spans, curvature)
    assert pieces.passes == before + 1
    for forms, span in zip(found, spans, strict=True):
        assert relative_error(forms, whole.quadratic_forms(span, curvature)) < EXACT


def test_a_block_is_that_of_the_batch() -> None:
    whole, pieces = both(CASES["weighted"])
    for curvature in ("hessian", "ggn"):
        found = pieces.block(["0.weight", "0.bias"], curvature)
        assert relative_error(found, whole.block(["0.weight", "0.bias"], curvature)) < EXACT


@pytest.mark.parametrize("sharing", ["expand", "reduce"])
@cases
def test_factors_are_those_of_the_batch(case: Case, sharing: str) -> None:
    whole, pieces = both(case)
    found = list[str]()
    for kind in filter(whole.programs.offers, KINDS):
        generators = [torch.Generator().manual_seed(3) for _ in range(2)]
        options = {"samples": 2, "sharing": sharing, "max_factor": 16}
        try:
            first, second = (
                lin.kronecker_factors(kind, generator=generator, **options)  # type: ignore[arg-type]
                for lin, generator in zip((whole, pieces), generators, strict=True)
            )
        except nt.MissingRule:
            assert case in WITHOUT_JACOBIAN  # nor is it a chain of layers
            continue
        found.append(kind)
        assert first.keys() == second.keys()
        for layer, factors in first.items():
            for name, value in factors.tensors.items():
                error = relative_error(second[layer].tensors[name], value)
                assert error < EXACT, f"{kind} {layer} {name}: {error}"
        states = [generator.get_state() for generator in generators]
        assert torch.equal(*states), "so that the next labels are the same, too"
    assert "empirical" in found


def test_only_the_recursion_through_overlapping_pools_needs_a_second_pass() -> None:
    _, pieces = both(CASES["images"])
    for kind in KINDS:
        before = pieces.passes
        pieces.kronecker_factors(kind)
        assert pieces.passes - before == 1 + (kind in ("kfra", "pch-1", "pch-2"))


def test_what_has_changed_is_told() -> None:
    case = CASES["weighted"]
    model, (x, y) = case.model(), case.batch(8)
    v = torch.zeros_like(model.params)
    pieces = LinearizedPieces(model, x, y, 3)
    model.params.add_(0.1)
    with pytest.raises(nt.NewtritonError, match="parameters have changed"):
        pieces.hvp(v)
    with pytest.raises(nt.NewtritonError, match="parameters have changed"):
        pieces.kronecker_factors("empirical")
    pieces = LinearizedPieces(model, x, y, 3)
    model.freeze("0.bias")
    with pytest.raises(nt.NewtritonError, match="frozen parameters have changed"):
        pieces.hvp(v)


def test_frozen_parameters_have_no_part() -> None:
    case = CASES["images"]
    model, (x, y) = case.model(), case.batch(8)
    model.freeze("0")
    whole = model.linearize(x, y)
    with model.dropout.kept():
        pieces = LinearizedPieces(model, x, y, 3)
    v = direction(whole)
    assert relative_error(pieces.gradient, whole.gradient) < EXACT
    assert relative_error(pieces.hvp(v), whole.hvp(v)) < EXACT


def test_errors_are_those_of_the_batch() -> None:
    case = CASES["ignored"]
    model, (x, y) = case.model(), case.batch(8)
    x[4, 0], y[1] = torch.nan, 9
    with pytest.raises(nt.NewtritonError, match="in 1 of 8 samples"):
        LinearizedPieces(model, x, y, 3)
    with pytest.raises(nt.NewtritonError, match="label 9 is out of range"):
        LinearizedPieces(model, torch.zeros_like(x), y, 3)
    with pytest.raises(nt.NewtritonError, match="no label of the batch counts"):
        LinearizedPieces(model, torch.zeros_like(x), torch.full_like(y, -100), 3)


def test_with_running_statistics_batch_norm_is_taken_in_pieces() -> None:
    net = nt.Sequential(nt.Linear(4), nt.BatchNorm1d(), nt.Tanh(), nt.Linear(3))
    model = nt.compile(net, (3,), nt.CrossEntropyLoss(), dtype=torch.float64, device="cpu")
    x, y = Case(mlp, (3,), model.criterion, CASES["images"].labels).batch(7)
    y.clamp_(max=2)
    with pytest.raises(nt.NewtritonError, match="layer 1 normalises by statistics of a whole"):
        LinearizedPieces(model, x, y, 3)
    pieces, whole = LinearizedPieces(model, x, y, 3, training=False), model.linearize(x, y, False)
    v = direction(whole)
    assert relative_error(pieces.ggnvp(v), whole.ggnvp(v)) < EXACT


class Centred:
    """Subtracts the sum of the batch."""

    def build(self, x: Node, scope: Scope) -> Node:
        """Returns what is left of the linear map."""
        h = scope.build("map", nt.Linear(2), x)
        total = ops.broadcast(ops.reduce_sum(h, (0,)), h.shape, (0,))
        return ops.map_(var(0) - var(1), h, total)


def test_what_mixes_samples_otherwise_is_refused_too() -> None:
    model = nt.compile(Centred(), (3,), nt.CrossEntropyLoss(), backend="aten", device="cpu")
    with pytest.raises(nt.NewtritonError, match="mixes the samples of a batch"):
        LinearizedPieces(model, torch.randn(5, 3), torch.zeros(5, dtype=torch.int64), 2)


@pytest.mark.parametrize("backend", ["triton"])
def test_kernels_give_the_same(backend: str) -> None:
    case = CASES["ignored"]
    found = dict[str, LinearizedPieces]()
    for name in ("aten", backend):
        model = case.model(backend=name, dtype=torch.float32)
        found[name] = LinearizedPieces(model, *case.batch(5, dtype=torch.float32), 3)
    a, b = found.values()
    v = direction(a).float()
    assert relative_error(b.gradient, a.gradient) < 2e-5
    assert relative_error(b.hvp(v), a.hvp(v)) < 2e-5
    pairs = [lin.kronecker_factors("empirical")["0"].tensors for lin in (a, b)]
    for name, value in pairs[0].items():
        assert relative_error(pairs[1][name], value) < 2e-5
