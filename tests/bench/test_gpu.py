"""The table of a GPU is worth something even when a step fails, or takes too long."""

import json
from pathlib import Path

import pytest
import torch

import newtriton as nt
from newtriton.bench import gpu
from newtriton.runtime.fused.backend import TritonBackend
from newtriton.runtime.fused.settings import Settings


def step(*tables):
    def rows(device):
        for table in tables:
            if table is None:
                raise RuntimeError("out of memory")
            yield [table]

    return rows


def test_a_step_that_fails_keeps_its_rows_and_the_other_steps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    steps = {"first": step({"ms": 1}, None, {"ms": 2}), "second": step({"ms": 3}, {"ms": 4})}
    assert gpu.table(steps, 1e9, tmp_path / "gpu.json") == 1
    assert "first failed: RuntimeError: out of memory" in capsys.readouterr().out
    first, second = (json.loads((tmp_path / f"gpu-{n}.json").read_text()) for n in steps)
    assert first["rows"] == [{"ms": 1}] and second["rows"] == [{"ms": 3}, {"ms": 4}]


def test_the_time_is_kept(capsys: pytest.CaptureFixture[str]):
    steps = {"a": step({"ms": 1}, {"ms": 2}), "b": step({"ms": 3})}
    assert gpu.table(steps, 0.0, None) == 0
    shown = capsys.readouterr().out
    assert "time is up" in shown and "2" not in shown and "3" not in shown


@pytest.mark.interpreter
def test_calls_of_training_steps_are_run_then_recorded_then_replayed():
    net = nt.Sequential(nt.Linear(4), nt.Tanh(), nt.Linear(3))
    settings = Settings("ieee", "fused", True, 8192, record=lambda work: work)
    backend = TritonBackend(settings, torch.device("cpu"))
    model = nt.Model(net, (2,), nt.CrossEntropyLoss(), backend, torch.float32, 0.0, 0)
    x, y = torch.randn(5, 2), torch.arange(5) % 3
    row = gpu.trained(nt.KFAC(model), x, y, steps=4)
    assert row["steps"] == 4 and row["median_ms"] > 0
    assert row["calls"]["run"] == sum(row["run"].values()) > 0
    assert row["calls"]["recorded"] > 0 and row["calls"]["replayed"] > 0
    with gpu.launched() as calls:
        model.linearize(x, y)
    assert sum(calls.values()) == 1 and {name for name, _ in calls} == {"linearize"}
