"""What many batches give together is what one batch of all samples gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import newtriton as nt
from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.model.moments import SampledFactors
from tests.tolerances import assert_close

from ..problems import parts_of, problem

F64 = torch.float64


@dataclass
class Case:
    """A model with its samples, in one batch and in several of unequal size."""

    model: nt.Model
    whole: tuple[Tensor, Tensor]
    parts: list[tuple[Tensor, Tensor]]


def _cnn() -> Case:
    model, [whole] = problem("cnn", weight_decay=0.1)
    return Case(model, whole, parts_of(*whole))


def _ignoring() -> Case:
    """A sequence model of which labels decide what counts, more in some batches than in others."""
    net = nt.Sequential(nt.Embedding(7, 5), nt.Linear(4), nt.Tanh(), nt.Linear(7))
    loss = nt.CrossEntropyLoss(ignore_index=-100)
    model = nt.compile(net, nt.InputSpec((4,), "int"), loss, dtype=F64, weight_decay=0.01)
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randint(0, 7, (12, 4), generator=generator) for _ in range(2))
    y[:5, 1:] = -100
    return Case(model, (x, y), [(x[:5], y[:5]), (x[5:9], y[5:9]), (x[9:], y[9:])])


def _dropping_out() -> Case:
    net = nt.Sequential(nt.Linear(6), nt.Tanh(), nt.Dropout(0.5), nt.Linear(3))
    model = nt.compile(net, (4,), nt.CrossEntropyLoss(), dtype=F64)
    _, [whole] = problem("mlp")
    return Case(model, whole, parts_of(*whole))


CASES = {"cnn": _cnn, "ignoring": _ignoring, "dropout": _dropping_out}


@pytest.fixture(params=[*CASES])
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]()


def both(case: Case, keep: bool = False) -> tuple[nt.Linearization, nt.LinearizedData]:
    """The linearizations of one batch and of several, in which the same elements drop out."""
    before = case.model.dropout.state_dict()
    lin = case.model.linearize(*case.whole)
    case.model.dropout.load_state_dict(before)
    return lin, nt.LinearizedData(case.model, case.parts, keep=keep)


@pytest.mark.parametrize("keep", [False, True])
def test_products_are_those_of_one_batch(case: Case, keep: bool) -> None:
    lin, data = both(case, keep)
    assert (data.batch, data.count) == (lin.batch, lin.count)
    assert data.objective == pytest.approx(lin.objective, rel=1e-12)
    assert float(data.loss) == pytest.approx(lin.objective, rel=1e-12)
    assert_close(data.gradient, lin.gradient)
    generator = torch.Generator().manual_seed(1)
    u, v = torch.randn(2, case.model.layout.numel, generator=generator, dtype=F64)
    assert_close(data.hvp(v), lin.hvp(v))
    assert_close(data.ggnvp(v), lin.ggnvp(v))
    assert_close(data.data_product(v, "hessian", by_layer=True),
                 lin.data_product(v, "hessian", by_layer=True))  # fmt: skip
    for matrix in ("hessian", "ggn"):
        assert_close(data.quadratic_forms([u, v], matrix), lin.quadratic_forms([u, v], matrix))


@pytest.mark.parametrize("kind", ["empirical", "kflr"])
@pytest.mark.parametrize("per_sample", [False, True])
def test_factors_are_those_of_one_batch(case: Case, kind: str, per_sample: bool) -> None:
    lin, data = both(case)
    expected, found = (each.kronecker_factors(kind, per_sample=per_sample) for each in (lin, data))
    assert found.keys() == expected.keys()
    for layer, factors in expected.items():
        for name, tensor in factors.tensors.items():
            assert_close(found[layer].tensors[name], tensor, f"{layer}.{name}")
        if isinstance(factors, SampledFactors):
            of_data = found[layer]
            assert isinstance(of_data, SampledFactors)
            bases = [torch.linalg.qr(torch.randn_like(x)).Q for x in factors.pair.tensors.values()]
            assert_close(of_data.second_moments(*bases), factors.second_moments(*bases), layer)


def test_means_of_inputs_are_those_of_one_batch() -> None:
    lin, data = both(_cnn())
    expected, found = (each.kronecker_factors("kflr", means=["6"]) for each in (lin, data))
    assert isinstance(found["6"], nt.MeanFactors)
    for name, tensor in expected["6"].tensors.items():
        assert_close(found["6"].tensors[name], tensor)


def test_diagnoses_are_those_of_one_batch() -> None:
    lin, data = both(_cnn())
    kinds = ("kflr", "ggn", "ekfac-kflr")
    errors = [nt.layer_errors(each, kinds).absolute for each in (lin, data)]
    cosines = [nt.alignment(each, ("kflr",), damping=1.0).whole["kflr"] for each in (lin, data)]
    for kind in kinds:
        for layer, error in errors[0][kind].items():
            assert errors[1][kind][layer] == pytest.approx(error, rel=1e-8, abs=1e-12)
    assert cosines[1] == pytest.approx(cosines[0], rel=1e-8)
    largest = [nt.spectrum(each, k=1, basis=30).largest for each in (lin, data)]
    assert largest[1] == pytest.approx(largest[0], rel=1e-6)
    traces = [nt.trace(each, "ggn", products=30).value for each in (lin, data)]
    assert traces[1] == pytest.approx(traces[0], rel=1e-8)
    assert_close(nt.diagonal(data, "ggn").values, nt.diagonal(lin, "ggn").values)
    found = [nt.density(each, vectors=2, steps=5, width=0.1).nodes for each in (lin, data)]
    assert_close(found[1], found[0])


def test_a_loader_in_random_order_gives_the_same_batches_each_time() -> None:
    model, [(x, y)] = problem("mlp")
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(x, y), 5, shuffle=True, generator=torch.Generator()
    )
    data = nt.LinearizedData(model, loader)
    v = torch.ones_like(model.params)
    assert torch.equal(data.hvp(v), data.hvp(v))
    assert_close(data.hvp(v), model.linearize(x, y).hvp(v))


def test_data_go_on_as_if_nothing_had_been_diagnosed() -> None:
    model, [(x, y)] = problem("mlp")
    batches, others = (nt.Batches(x, y, 5, seed=3) for _ in range(2))
    data = nt.LinearizedData(model, batches)
    data.hvp(torch.ones_like(model.params))
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(batches, others, strict=True))


def test_batches_come_in_the_models_dtype() -> None:
    train, _ = nt.digits()
    model = nt.compile(nt.models.mlp((4,)), (1, 8, 8), nt.CrossEntropyLoss(), dtype=F64)
    data = nt.LinearizedData(model, nt.Batches(*train, 600))
    whole = model.linearize(train.x.double(), train.y)
    assert data.objective == pytest.approx(whole.objective, rel=1e-12)


def test_batch_norm_takes_each_batch_or_what_runs() -> None:
    net = nt.Sequential(nt.Conv2d(3, 3), nt.BatchNorm2d(), nt.Flatten(), nt.Linear(3))
    model = nt.compile(net, (2, 6, 6), nt.CrossEntropyLoss(), dtype=F64)
    _, [(x, y)] = problem("cnn")
    parts, v = parts_of(x, y), torch.ones_like(model.params)
    by_batch = sum(len(b) * model.linearize(a, b).hvp(v) for a, b in parts) / len(y)
    assert_close(nt.LinearizedData(model, parts).hvp(v), by_batch)
    running = nt.LinearizedData(model, parts, training=False)
    assert_close(running.hvp(v), model.linearize(x, y, training=False).hvp(v))


def test_what_drops_out_stays_out_whatever_is_linearized_meanwhile() -> None:
    case = _dropping_out()
    data, v = nt.LinearizedData(case.model, case.parts), torch.ones_like(case.model.params)
    before = data.hvp(v)
    state = case.model.dropout.state_dict()
    case.model.linearize(*case.whole)
    assert torch.equal(data.hvp(v), before)
    assert case.model.dropout.state_dict() != state


def test_a_stored_jacobian_needs_the_linearizations() -> None:
    _, data = both(_cnn())
    with pytest.raises(nt.NewtritonError, match="product is 'stored-jacobian': "):
        data.data_product(data.model.params, "hessian", "stored-jacobian")
    _, kept = both(_cnn(), keep=True)
    v = torch.ones_like(data.model.params)
    assert torch.equal(data.ggnvp(v, "stored-jacobian"), data.ggnvp(v))
    assert "jacobian" not in vars(next(data._linearizations()))
    assert_close(kept.ggnvp(v, "stored-jacobian"), data.ggnvp(v))
    assert all("jacobian" in vars(lin) for lin in kept._linearizations())


def test_changed_parameters_are_told() -> None:
    case = _cnn()
    data = nt.LinearizedData(case.model, case.parts)
    case.model.params.mul_(2.0)
    with pytest.raises(NewtritonError, match="parameters have changed since the data"):
        data.hvp(torch.ones_like(case.model.params))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (iter, "passed through often"),
        (lambda parts: parts[0][0], "passed through often"),
        (lambda parts: [], "no batches"),
        (lambda parts: [1, 2], "no pair of tensors"),
        (lambda parts: nn.Identity(), "iterable"),
    ],
)
def test_what_is_no_data_is_refused(make: Callable[[list], object], message: str) -> None:
    case = _cnn()
    with pytest.raises((NewtritonError, TypeError), match=message):
        nt.LinearizedData(case.model, make(case.parts))
