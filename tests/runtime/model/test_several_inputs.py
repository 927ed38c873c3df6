"""Several inputs, integers and constants: what layers get, what is fed, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import newtriton as nt
from newtriton.compiler.graph import ops, scalar
from newtriton.compiler.graph.ir import Node, Op
from newtriton.compiler.language.network import Scope
from newtriton.compiler.values import Constant, Data
from tests.runtime.transfers import counted
from tests.tolerances import assert_close

F64 = torch.float64
SCALES = torch.tensor([0.5, 1.0, 2.0, -1.0], dtype=F64)


class Scaled:
    """The linear map of x ⊙ counts + scales, from two inputs."""

    def __init__(self, x: Any, counts: Any) -> None:
        self.x, self.counts = x, counts

    def build(self, inputs: Any, scope: Scope) -> Node:
        x, counts = inputs[self.x], inputs[self.counts]
        scales = scope.constant(SCALES)
        assert scope.constant(SCALES.clone()) is scales
        assert scope.constant(torch.arange(4)).type.kind == "int"
        scales = ops.broadcast(scales, x.shape)
        mixed = ops.map_(scalar.var(0) * scalar.var(1) + scalar.var(2), x, counts, scales)
        return scope.build("map", nt.Linear(3), mixed)


COUNTS = nt.InputSpec((4,), "int")
FORMS: dict[str, tuple[Any, Any, Any]] = {
    "tuple": (Scaled(0, 1), ((4,), COUNTS), lambda x, counts: (x, counts)),
    "list": (Scaled(0, 1), [(4,), COUNTS], lambda x, counts: [x, counts]),
    "dictionary": (
        Scaled("x", "y"), {"y": COUNTS, "x": (4,)}, lambda x, counts: {"x": x, "y": counts},
    ),
}  # fmt: skip
forms = pytest.mark.parametrize("form", FORMS)


def compiled(form: str, backend: str = "aten", dtype: torch.dtype = F64) -> nt.Model:
    net, shape, _ = FORMS[form]
    return nt.compile(net, shape, nt.CrossEntropyLoss(), backend=backend, dtype=dtype, seed=1)


def batch(form: str, dtype: torch.dtype = F64) -> tuple[Any, Tensor, Tensor]:
    """The inputs, the labels, and what the linear map gets."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, 4, generator=generator, dtype=dtype)
    counts = torch.randint(0, 9, (5, 4), generator=generator)
    y = torch.randint(0, 3, (5,), generator=generator)
    return FORMS[form][2](x, counts), y, x * counts + SCALES.to(dtype)


@forms
@pytest.mark.parametrize("backend", ["aten", "triton"])
def test_all_calls_take_several_inputs(form: str, backend: str) -> None:
    dtype = F64 if backend == "aten" else torch.float32
    model, (x, y, mixed) = compiled(form, backend, dtype), batch(form, dtype)
    plain = nt.compile(nt.Linear(3), (4,), nt.CrossEntropyLoss(), backend="aten", dtype=dtype)
    plain.params.copy_(model.params)
    assert_close(model(x), plain(mixed))
    assert torch.equal(model.classes(x), plain.classes(mixed))
    assert_close(model.loss(x, y), plain.loss(mixed, y))
    lin, expected = model.linearize(x, y), plain.linearize(mixed, y)
    assert_close(lin.gradient, expected.gradient)
    assert_close(model.gradient(x, y)[1], expected.gradient)
    assert_close(lin.hvp(model.params), expected.hvp(model.params))
    assert list(model.state_dict()) == ["map.weight", "map.bias"]


def test_constants_are_held_once_as_the_model_computes() -> None:
    model = compiled("tuple", dtype=torch.float32)
    held = {k: x for k, x in model.feed(batch("tuple")[0]).items() if isinstance(k, Constant)}
    assert {x.dtype for x in held.values()} == {torch.float32, torch.int64}
    assert len(held) == 2


def test_booleans_are_integers() -> None:
    model, (x, y, _) = compiled("tuple"), batch("tuple")
    mask = x[1] > 4
    assert torch.equal(model((x[0], mask)), model((x[0], mask.long())))
    assert model.linearize((x[0], mask), y).gradient.isfinite().all()


def test_a_feed_has_every_input() -> None:
    x, *_ = batch("dictionary")
    feed = compiled("dictionary").feed(x)
    assert feed[Data("x")] is x["x"] and feed[Data("y")] is x["y"]


def test_images_come_with_their_channels_last() -> None:
    class Both:
        def build(self, inputs: Any, scope: Scope) -> Node:
            image, features = inputs
            flat = scope.build("flat", nt.Flatten(), scope.build("conv", nt.Conv2d(2, 3), image))
            return scope.build("map", nt.Linear(2), ops.make(Op.CONCAT, flat, features, axis=1))

    model = nt.compile(Both(), ((3, 5, 4), (6,)), nt.MSELoss(), backend="aten", dtype=F64)
    x = (torch.randn(2, 3, 5, 4, dtype=F64), torch.randn(2, 6, dtype=F64))
    weights = model.unflatten(model.params)
    flat = torch.conv2d(x[0], weights["conv.weight"], weights["conv.bias"]).flatten(1)
    expected = torch.cat([flat, x[1]], 1) @ weights["map.weight"].T + weights["map.bias"]
    assert_close(model(x), expected)


X, Y, _ = batch("tuple")
REFUSED: dict[str, tuple[Any, str]] = {
    "one": (X[0], "takes the inputs '0', '1', got one input"),
    "too few": (X[:1], "takes the inputs '0', '1', got the inputs '0'"),
    "other names": ({"a": X[0], "b": X[1]}, "got the inputs 'a', 'b'"),
    "samples": ((X[0], X[1][:3]), "different numbers of samples, 5 of '0', 3 of '1'"),
    "kind": ((X[0], X[0]), "inputs '1' are torch.float64, the network takes int64: use .long()"),
    "width": ((X[0], X[1].int()), "inputs '1' are torch.int32, the network takes int64"),
    "shape": ((X[0], X[1][:, :3]), "inputs '1' are 5×3: the network was compiled for N×4"),
    "dtype": ((X[0].float(), X[1]), "inputs '0' are torch.float32"),
    "NaN": ((X[0] / 0.0, X[1]), "inputs '0' have NaN or infinite values in 5 of 5 samples"),
    "nested": ((X[0], [X[1]]), "input '1' is a list"),
}


@pytest.mark.parametrize(("x", "sentence"), REFUSED.values(), ids=REFUSED)
def test_bad_inputs_are_named(x: Any, sentence: str) -> None:
    model = compiled("tuple")
    for call in (model, lambda x: model.linearize(x, Y), model.classes):
        with pytest.raises(nt.NewtritonError) as error:
            call(x)
        assert sentence in str(error.value)


def test_an_input_that_has_changed_makes_a_linearization_stale() -> None:
    model, (x, y, _) = compiled("tuple"), batch("tuple")
    lin = model.linearize(x, y)
    x[1].add_(1)
    with pytest.raises(nt.NewtritonError, match="the inputs have changed"):
        lin.hvp(model.params)


class Tables:
    """Sums rows of two tables, at the first four numbers of a sample and at its last one."""

    def build(self, x: Node, scope: Scope) -> Node:
        words = scope.parameter("words", (7, 3), "xavier", (7, 3))
        kinds = scope.parameter("kinds", (2, 3), "xavier", (2, 3))
        many = ops.make(Op.SLICE, x, axis=1, start=0, stop=4)
        one = ops.reshape(ops.make(Op.SLICE, x, axis=1, start=4, stop=5), x.shape[:1])
        rows = ops.make(Op.GATHER_ROWS, words, many)
        return ops.total([ops.reduce_sum(rows, [1]), ops.make(Op.GATHER_ROWS, kinds, one)])


@pytest.mark.parametrize(
    ("value", "place", "rows"), [(7, 0, 7), (-1, 3, 7), (2, 4, 2), (10**12, 1, 7)]
)
def test_numbers_of_rows_are_in_range(value: int, place: int, rows: int) -> None:
    model = nt.compile(Tables(), nt.InputSpec((5,), "int"), nt.CrossEntropyLoss(), backend="aten")
    x, y = torch.tensor([[0, 6, 2, 3, 1], [5, 6, 0, 0, 0]]), torch.tensor([0, 2])
    assert model.linearize(x, y).gradient.isfinite().all()
    x[1, place] = value
    for call in (model, lambda x: model.linearize(x, y), lambda x: model.gradient(x, y)):
        with pytest.raises(nt.NewtritonError, match=f"have {value}, .* table of {rows} rows"):
            call(x)


def test_checks_of_all_inputs_come_over_in_one_transfer() -> None:
    tables = nt.compile(Tables(), nt.InputSpec((5,), "int"), nt.CrossEntropyLoss(), backend="aten")
    plain = nt.compile(nt.Linear(3), (4,), nt.CrossEntropyLoss(), backend="aten")
    y = torch.tensor([0, 2])
    calls = ((tables, torch.ones(2, 5).long(), y), (plain, torch.ones(2, 4), y))
    reads = []
    for model, x, labels in (*calls, (compiled("tuple"), *batch("tuple")[:2])):
        model.linearize(x, labels)
        with counted() as seen:
            model.linearize(x, labels)
        reads.append(sum(seen.reads.values()))
    assert reads[0] == reads[1] == reads[2]
