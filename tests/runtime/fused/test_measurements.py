"""Who computes a contraction: the faster one, measured once per shape and remembered."""

from pathlib import Path

import pytest
import torch

import newtriton as nt
from newtriton.runtime.fused import codecache
from newtriton.runtime.fused import measurements as measure

CPU = torch.device("cpu")
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
    ways = {"fused": lambda: lambda: None, "vendor": lambda: lambda: None}
    measurements = measure.Measurements(CPU)
    assert measurements.fastest("shape", ways) == "vendor"
    assert measurements.fastest("shape", ways) == "vendor" and not clock
    assert measure.Measurements(CPU).fastest("shape", ways) == "vendor"  # another process reads it


def test_a_damaged_file_is_measured_again(clock: list[float]):
    ways = {"fused": lambda: lambda: None, "vendor": lambda: lambda: None}
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
    schedule = str(model.executor(model.programs[True].linearize, tape=True).plan(3).schedule)  # type: ignore[attr-defined]
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


def test_seconds_are_positive():
    assert measure.seconds(lambda: torch.ones(10).sum(), CPU) > 0
