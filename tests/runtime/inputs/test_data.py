"""Bad input: one error that names what was given, and parameters and buffers as they were."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

import newtriton as nt

Call = Callable[[nt.Model, Any, Any], object]
F64 = torch.float64


def compiled(criterion: Any = None, **options: Any) -> nt.Model:
    net = nt.Sequential(
        nt.Conv2d(3, 3, padding=1), nt.BatchNorm2d(), nt.SiLU(), nt.Flatten(), nt.Linear(3)
    )
    loss = nt.CrossEntropyLoss() if criterion is None else criterion
    return nt.compile(net, (2, 4, 4), loss, dtype=F64, **options)


shared = cache(compiled)  # for calls that must not change it


def images(n: int = 4) -> Tensor:
    return torch.randn(n, 2, 4, 4, dtype=F64, generator=torch.Generator().manual_seed(0))


CLASSES = torch.tensor([0, 1, 2, 0])

CALLS: dict[str, Call] = {
    "loss": lambda model, x, y: model.loss(x, y),
    "objective": lambda model, x, y: model.objective(x, y),
    "gradient": lambda model, x, y: model.gradient(x, y),
    "linearize": lambda model, x, y: model.linearize(x, y),
    "FITRE": lambda model, x, y: nt.FITRE(model).step(x, y),
    "Adam": lambda model, x, y: nt.TorchOptimizer(model, torch.optim.Adam).step(x, y),
}
calls = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@contextmanager
def refused(model: nt.Model, *fragments: str) -> Iterator[None]:
    """An error with these fragments, after which the model's state is bitwise what it was."""
    params, buffers = model.params.clone(), {n: b.clone() for n, b in model.buffers.items()}
    with pytest.raises(nt.NewtritonError) as raised:
        yield
    for fragment in fragments:
        assert fragment in str(raised.value)
    assert torch.equal(model.params, params)
    assert all(torch.equal(model.buffers[n], b) for n, b in buffers.items())


def test_a_good_batch_is_taken_by_every_call() -> None:
    found = {name: call(compiled(), images(), CLASSES) for name, call in CALLS.items()}
    losses = [found["objective"], found["gradient"][0], found["linearize"].objective]
    assert math.isfinite(found["loss"]) and losses[1:] == losses[:1] * 2
    assert found["FITRE"].loss == found["Adam"].loss == losses[0]


# --- unknown options -----------------------------------------------------------------------------


def test_an_unknown_curvature_is_refused() -> None:
    model = compiled()
    lin = model.linearize(images(), CLASSES)
    with refused(model, "curvature is 'fisher': one of 'hessian', 'ggn'"):
        lin.quadratic_forms([model.params], "fisher")
    with refused(model, "kind is 'fisher': one of 'kfac', 'empirical'"):
        lin.kronecker_factors("fisher")
    with refused(model, "kind is 'fisher'"):
        nt.FITRE(model, factors="fisher").step(images(), CLASSES)


# --- data -----------------------------------------------------------------------------------------


def spoilt(value: float, *samples: int) -> Tensor:
    x = images()
    for i in samples:
        x[i, 1, 2, 3] = value
    return x


INPUTS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "channels": (torch.zeros(4, 3, 4, 4, dtype=F64), ("4×3×4×4", "N×2×4×4")),
    "channels last": (images().permute(0, 2, 3, 1), ("4×4×4×2", "N×2×4×4")),
    "one image": (images()[0], ("2×4×4", "N×2×4×4")),
    "flat": (images().flatten(1), ("4×32", "N×2×4×4")),
    "float32": (images().float(), ("torch.float32", "torch.float64")),
    "integers": (images().long(), ("torch.int64", "torch.float64")),
    "NumPy": (images().numpy(), ("ndarray", "torch.Tensor")),
    "list": (images().tolist(), ("list", "torch.Tensor")),
    "nothing": (None, ("NoneType",)),
    "no samples": (images()[:0], ("the batch is empty",)),
    "NaN": (spoilt(math.nan, 1, 3), ("NaN or infinite", "2 of 4 samples")),
    "infinity": (spoilt(-math.inf, 0), ("NaN or infinite", "1 of 4 samples")),
    "meta device": (images().to("meta"), ("inputs are on meta", "the model is on cpu")),
}


@calls
@pytest.mark.parametrize(("x", "fragments"), INPUTS.values(), ids=INPUTS)
def test_bad_inputs_are_refused(call: Call, x: Any, fragments: tuple[str, ...]) -> None:
    model = shared()
    y = CLASSES[:0] if isinstance(x, Tensor) and len(x) == 0 else CLASSES
    with refused(model, *fragments):
        call(model, x, y)


@pytest.mark.parametrize(("x", "fragments"), INPUTS.values(), ids=INPUTS)
def test_bad_inputs_without_labels_are_refused(x: Any, fragments: tuple[str, ...]) -> None:
    model = shared()
    with refused(model, *fragments):
        model(x)


@pytest.mark.parametrize(
    "batch",
    [(None, CLASSES), (images(), None), images(), (spoilt(math.nan, 0), CLASSES)],
    ids=["no inputs", "no labels", "no pair", "NaN"],
)
def test_bad_batches_in_training(batch: Any) -> None:
    model = shared()
    with refused(model):
        nt.fit(model, nt.FITRE(model), [batch], epochs=1, progress=False)


CE, MSE, BCE = nt.CrossEntropyLoss(), nt.MSELoss(), nt.BCEWithLogitsLoss()
ROWS = torch.rand(4, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
LABELS: list[tuple[Any, Any, tuple[str, ...]]] = [
    (CE, torch.tensor([0, 1, 3, 0]), ("label 3 is out of range", "3 outputs", "0…2")),
    (CE, torch.tensor([0, -1, 2, 0]), ("label -1 is out of range",)),
    (MSE, torch.tensor([0, 1, 3, 0]), ("label 3 is out of range",)),
    (BCE, torch.tensor([0, 1, -100, 0]), ("label -100 is out of range",)),
    (CE, CLASSES.int(), ("int64", "torch.int32")),
    (CE, CLASSES.double(), ("CrossEntropyLoss takes int64", "torch.float64")),
    (CE, ROWS, ("CrossEntropyLoss takes int64", "(4, 3)")),
    (CE, CLASSES[:, None], ("shape (4,)", "(4, 1)")),
    (MSE, CLASSES[:, None], ("MSELoss", "(4, 1)")),
    (CE, CLASSES[:3], ("4 inputs but labels of shape (3,)",)),
    (MSE, ROWS[:3], ("4 inputs but labels of shape (3, 3)",)),
    (CE, torch.tensor(1), ("4 inputs but labels of shape ()",)),
    (CE, [0, 1, 2, 0], ("labels are list",)),
    (MSE, ROWS.float(), ("MSELoss takes labels of torch.float64", "torch.float32")),
    (BCE, ROWS > 0.5, ("BCEWithLogitsLoss takes labels of torch.float64", "torch.bool")),
    (MSE, ROWS[:, :2], ("(4, 3)", "(4, 2)")),
    (MSE, ROWS[:, 0], ("(4, 3)", "(4,)")),
    (MSE, ROWS / 0, ("labels have NaN or infinite values",)),
    (BCE, ROWS * math.nan, ("labels have NaN or infinite values",)),
    (BCE, 2 * ROWS, ("BCEWithLogitsLoss takes labels in [0, 1]",)),
    (BCE, -ROWS, ("BCEWithLogitsLoss takes labels in [0, 1]",)),
    (CE, CLASSES.to("meta"), ("labels are on meta", "the model is on cpu")),
]


@calls
@pytest.mark.parametrize(
    ("criterion", "y", "fragments"), LABELS, ids=[f"{c}: {f[-1]}" for c, _, f in LABELS]
)
def test_bad_labels_are_refused(
    call: Call, criterion: Any, y: Any, fragments: tuple[str, ...]
) -> None:
    model = shared(criterion)
    with refused(model, *fragments):
        call(model, images(), y)


def test_labels_without_the_axis_of_a_single_output_are_shown_the_way() -> None:
    model = nt.compile(nt.Linear(1), (3,), MSE, dtype=F64, device="cpu")
    with pytest.raises(nt.NewtritonError, match=r"\(4, 1\), got \(4,\): give y\.unsqueeze\(-1\)$"):
        model.loss(torch.zeros(4, 3, dtype=F64), torch.zeros(4, dtype=F64))


@pytest.mark.parametrize("name", ["gradient", "objective", "linearize", "FITRE", "Adam"])
def test_batch_statistics_need_more_than_one_value_per_channel(name: str) -> None:
    net = nt.Sequential(nt.Conv2d(3, 4), nt.BatchNorm2d(), nt.Flatten(), nt.Linear(3))
    model = nt.compile(net, (2, 4, 4), nt.CrossEntropyLoss(), dtype=F64)
    with refused(model, "1.running_mean", "one value per channel", "at least 2 samples"):
        CALLS[name](model, images(1), CLASSES[:1])
    CALLS[name](model, images(2), CLASSES[:2])
    assert model.loss(images(1), CLASSES[:1]).isfinite(), "running statistics need none"
    assert model.linearize(images(1), CLASSES[:1], training=False).gradient.isfinite().all()


# --- vectors, states, linearizations --------------------------------------------------------------

PRODUCTS: dict[str, Callable[[nt.Linearization, Any], object]] = {
    "hvp": lambda lin, v: lin.hvp(v),
    "ggnvp": lambda lin, v: lin.ggnvp(v),
    "quadratic_forms": lambda lin, v: lin.quadratic_forms([v]),
}


@pytest.mark.parametrize("product", PRODUCTS.values(), ids=PRODUCTS)
def test_bad_vectors_are_refused(product: Callable[[nt.Linearization, Any], object]) -> None:
    model = compiled()
    lin, v = model.linearize(images(), CLASSES), torch.randn_like(model.params)
    size = f"a flat vector of {len(v)} elements"
    with refused(model, f"v is ({len(v) - 1},)", size):
        product(lin, v[1:])
    with refused(model, f"v is ({len(v)}, 1)", size):
        product(lin, v[:, None])
    with refused(model, "v is torch.float32", "torch.float64"):
        product(lin, v.float())
    with refused(model, "model.flatten(dict)"):
        product(lin, model.unflatten(v))
    product(lin, v)


def test_quadratic_forms_of_no_vectors_are_refused() -> None:
    model = compiled()
    lin = model.linearize(images(), CLASSES)
    with refused(model, "no vectors"):
        lin.quadratic_forms([])


CHANGES: dict[str, Callable[[nt.Model], object]] = {
    "in place": lambda model: model.params.add_(1.0),
    "by name": lambda model: dict(model.named_parameters())["4.bias"].zero_(),
    "loaded": lambda model: model.load_state_dict(model.state_dict()),
    "SGD": lambda model: nt.TorchOptimizer(model, torch.optim.SGD, lr=1.0).step(images(), CLASSES),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_linearization_is_of_the_parameters_it_was_made_at(
    change: Callable[[nt.Model], object],
) -> None:
    model = compiled()
    lin, v = model.linearize(images(), CLASSES), torch.randn_like(model.params)
    change(model)
    for product in PRODUCTS.values():
        with refused(model, "the parameters have changed", "linearize again"):
            product(lin, v)
    for kind in ("kfac", "empirical"):
        with refused(model, "the parameters have changed"):
            lin.kronecker_factors(kind)


def test_a_state_with_faults_is_refused_with_all_of_them_and_loads_nothing() -> None:
    model, other = compiled(), compiled(seed=1)
    state: dict[str, Any] = other.state_dict()
    del state["0.bias"], state["1.running_var"]
    state["4.weight"] = state["4.weight"].T
    state["7.weight"] = torch.zeros(1)
    state["1.bias"] = [0.0, 0.0, 0.0]
    state["1.running_mean"] = torch.full((3,), math.nan, dtype=F64)
    lin = model.linearize(images(), CLASSES)
    with refused(
        model, "missing 0.bias", "missing 1.running_var", "unexpected 7.weight",
        "4.weight has shape (48, 3), not (3, 48)", "1.bias is list", "1.running_mean has values",
    ):  # fmt: skip
        model.load_state_dict(state)
    lin.hvp(model.params)  # nothing has changed


def test_flatten_lists_all_faults() -> None:
    model = compiled()
    named = model.unflatten(model.params)
    del named["0.bias"]
    named |= {"bias": torch.zeros(3), "4.bias": torch.zeros(2)}
    with refused(model, "missing 0.bias", "unexpected bias", "4.bias has shape (2,), not (3,)"):
        model.flatten(named)
    with refused(model, "the vector is (3,)"):
        model.unflatten(torch.zeros(3))


@pytest.mark.parametrize(
    ("y", "way"),
    [
        (torch.eye(3)[[0, 1, 2, 0]], "argmax(1)"),
        (torch.eye(3)[[0, 1, 2, 0]].long(), "argmax(1)"),
        (torch.tensor([[0], [1], [2], [0]]), "y.squeeze(-1).long()"),
        (torch.tensor([0, 1, 2, 0], dtype=torch.int32), "y.long()"),
        (torch.tensor([0, 1, 1, 0], dtype=torch.bool), "y.long()"),
    ],
)
def test_targets_of_another_kind_say_what_to_give(y: torch.Tensor, way: str) -> None:
    model = nt.compile(nt.Linear(3), (4,), nt.CrossEntropyLoss(), device="cpu")
    with pytest.raises(nt.NewtritonError, match=re.escape(way)):
        model.loss(torch.ones(4, 4), y)


@pytest.mark.parametrize("call", ["loss", "objective", "gradient", "linearize"])
def test_labels_may_not_be_none(call: str) -> None:
    with refused(model := shared(), "labels are NoneType: give a torch.Tensor"):
        getattr(model, call)(images(), None)
