"""The table of a GPU is worth something even when a step fails, or takes too long."""

import json
from pathlib import Path

import pytest

from newtriton.bench import gpu


def step(*tables):
    def rows(device):
        for table in tables:
            if table is None:
                raise RuntimeError("out of memory")
            yield [table]

    return rows


def test_a_step_that_fails_keeps_its_rows_and_the_other_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    steps = {"first": step({"ms": 1}, None, {"ms": 2}), "second": step({"ms": 3}, {"ms": 4})}
    monkeypatch.setattr(gpu, "STEPS", steps)
    assert gpu.table(1e9, tmp_path / "gpu.json") == 1
    assert "first failed: RuntimeError: out of memory" in capsys.readouterr().out
    first, second = (json.loads((tmp_path / f"gpu-{n}.json").read_text()) for n in steps)
    assert first["rows"] == [{"ms": 1}] and second["rows"] == [{"ms": 3}, {"ms": 4}]


def test_the_time_is_kept(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(gpu, "STEPS", {"a": step({"ms": 1}, {"ms": 2}), "b": step({"ms": 3})})
    assert gpu.table(0.0, None) == 0
    shown = capsys.readouterr().out
    assert "time is up" in shown and "2" not in shown and "3" not in shown
