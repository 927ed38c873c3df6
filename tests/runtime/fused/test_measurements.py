"""Who computes a contraction: the faster one, measured once per shape and remembered."""

from pathlib import Path

import pytest
import torch

import newtriton as nt
from newtriton.compiler.graph import ops
from newtriton.compiler.graph.ir import N, Op
from newtriton.compiler.lowering.precision import is_rounded, rounded
from newtriton.runtime.backend import Context
from newtriton.runtime.fused import codecache
from newtriton.runtime.fused import measurements as measure
from newtriton.runtime.fused.selection import BY_VENDOR, WAYS

from ...tolerances import assert_close

CPU = torch.device("cpu")
ONES = torch.ones(4)
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(codecache.FOLDER, str(tmp_path / "cache"))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Each timing takes the next number of the list."""
    times: list[float] = []

    def seconds(call, device) -> float:
        call()
        return times.pop(0)

    monkeypatch.setattr(measure, "seconds", seconds)
    return times


def test_the_faster_way_is_taken_and_remembered(clock: list[float]):
    clock += [2.0, 1.0]
    ways = {"fused": lambda: lambda: ONES, "vendor": lambda: lambda: ONES}
    measurements = measure.Measurements(CPU)
    assert measurements.fastest("shape", ways) == "vendor"
    assert measurements.fastest("shape", ways) == "vendor" and not clock
    assert measure.Measurements(CPU).fastest("shape", ways) == "vendor"  # another process reads it


def test_a_damaged_file_is_measured_again(clock: list[float]):
    ways = {"fused": lambda: lambda: ONES, "vendor": lambda: lambda: ONES}
    clock += [1.0, 2.0, 2.0, 1.0]
    measurements = measure.Measurements(CPU)
    assert measurements.fastest("shape", ways) == "fused"
    (codecache.folder() / measurements.file).write_text("{")
    assert measure.Measurements(CPU).fastest("shape", ways) == "vendor"


@pytest.mark.interpreter
def test_a_model_is_right_whoever_was_faster(clock: list[float]):
    clock += [1.0, 2.0, 2.0, 1.0] * 20
    net = nt.Sequential(nt.Conv2d(4, 3), nt.SiLU(), nt.Flatten(), nt.Linear(3))
    shape, loss = (2, 6, 6), nt.CrossEntropyLoss()
    x, y = torch.randn(3, *shape), torch.arange(3)
    options = {"device": CPU, "seed": 0}
    model = nt.compile(net, shape, loss, backend="triton", contractions="measured", **options)
    plain = nt.compile(net, shape, loss, backend="aten", **options)
    torch.testing.assert_close(model.linearize(x, y).gradient, plain.linearize(x, y).gradient)
    known = model.programs[True]
    plan = model.runner.executor(known.linearize, known.tape).plan(3)
    assert plan is not None
    schedule = str(plan.schedule)
    assert "by the vendor" in schedule
    assert any("conv map" in line for line in schedule.splitlines())


@pytest.mark.interpreter
def test_layers_of_one_shape_are_measured_once(clock: list[float]):
    clock += [1.0, 2.0]
    net = nt.Sequential(nt.Linear(5), nt.Tanh(), nt.Linear(5), nt.Tanh(), nt.Linear(5))
    options = {"backend": "triton", "contractions": "measured", "device": CPU}
    model = nt.compile(net, (5,), nt.MSELoss(), **options)
    model(torch.randn(3, 5))
    (key,) = measure.Measurements(CPU).fastest_of
    assert "layer" not in key and not clock
    for known in ("matmul", "ieee", "batch 3", "N×5", "transpose_b", "True"):
        assert known in key


@pytest.mark.interpreter
@pytest.mark.parametrize("precision", ["ieee", "tf32x3", "tf32"])
def test_every_precision_is_measured(precision: str, clock: list[float]):
    clock += [1.0, 2.0, 2.0, 1.0] * 20
    net = nt.Sequential(
        nt.Conv2d(4, 3), nt.SiLU(), nt.Conv2d(4, 3), nt.Tanh(), nt.Flatten(), nt.Linear(3)
    )
    models = [
        nt.compile(
            net, (2, 5, 5), nt.CrossEntropyLoss(), backend="triton", device=CPU,
            precision=precision, contractions=who,
        )
        for who in ("measured", "fused")
    ]  # fmt: skip
    x, y = torch.randn(2, 2, 5, 5), torch.arange(2)
    v = torch.randn_like(models[0].params)
    found, expected = (model.linearize(x, y) for model in models)
    assert_close(found.gradient, expected.gradient)
    assert_close(found.hvp(v), expected.hvp(v))
    factors, others = (lin.kronecker_factors("empirical") for lin in (found, expected))
    for layer, pair in factors.items():
        assert_close(pair.A, others[layer].A)
        assert_close(pair.G, others[layer].G)
    assert len(clock) < 70


def test_a_contraction_is_measured_on_operands_of_its_own():
    x, w = ops.input_("x", (N, 6)), ops.param("w", (5, 6))
    product = ops.matmul(rounded(x, "tf32"), rounded(w, "tf32"), tb=True)
    node = measure.alone(product)
    assert node.op is Op.MATMUL and node.type == product.type and node is not product
    assert all(map(is_rounded, node.inputs))
    leaves = measure.random_leaves(node, Context(3, torch.float32, CPU))
    assert list(leaves) == [x.inputs[0] for x in node.inputs]
    for x in leaves.values():
        torch.testing.assert_close(x, x.bfloat16().float(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("wrong", "chosen"), [(1, "fused, in four warps"), (2, "vendor")], ids=["once", "always"]
)
@pytest.mark.parametrize("value", [1.01, float("nan"), float("inf")])
def test_what_gives_other_numbers_is_not_used(
    wrong: int, chosen: str, value: float, clock: list[float]
):
    clock += [1.0, 2.0]
    bad = torch.tensor([1.0, 1.0, 1.0, value])
    results = [bad] * wrong + [ONES] * 3
    ways = {way: lambda x=x: lambda: x for way, x in zip(WAYS, results, strict=False)}
    measurements = measure.Measurements(CPU)
    with pytest.warns(UserWarning, match="is wrong on this GPU") as warned:
        assert measurements.fastest("shape", ways) == chosen
    assert len(warned) == wrong and str(warned[0].message).startswith("shape: fused is wrong")
    assert measure.Measurements(CPU).fastest("shape", ways) == chosen


@pytest.mark.interpreter
def test_a_model_is_right_where_a_kernel_is_wrong(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
):
    clock += [1.0, 2.0] * 20
    call = measure.Trials._call

    def compiled_wrongly(self, node, context, way, leaves):
        found = call(self, node, context, way, leaves)
        return (lambda: found() + 1.0) if way != BY_VENDOR else found

    monkeypatch.setattr(measure.Trials, "_call", compiled_wrongly)
    options = {"backend": "triton", "contractions": "measured", "device": CPU}
    model = nt.compile(nt.Linear(5), (5,), nt.MSELoss(), **options)
    with pytest.warns(UserWarning, match="is wrong on this GPU"):
        model(torch.randn(3, 5))
        text = model.explain(3, kernels=True)
    assert "by the vendor" in text


def test_seconds_are_positive():
    assert measure.seconds(lambda: torch.ones(10).sum(), CPU) > 0
