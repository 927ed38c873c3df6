"""Measurements: rounds are interleaved, and results say where they come from."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch

from newtriton.bench import _measure


def test_calls_take_turns_and_the_first_round_does_not_count() -> None:
    made: list[str] = []
    calls = {name: lambda name=name: made.append(name) for name in ("a", "b")}
    seconds = _measure.interleaved(calls, rounds=3)
    assert made == ["a", "b"] * 4
    assert {name: len(found) for name, found in seconds.items()} == {"a": 3, "b": 3}
    assert min(min(found) for found in seconds.values()) >= 0


def test_calls_that_do_not_run_are_told_and_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    def refused() -> None:
        raise RuntimeError("out of\nmemory")

    assert _measure.tried({"a: x": lambda: 1, "b: x": refused}) == {"a: x": 0}
    assert capsys.readouterr().out == "b: x does not run: RuntimeError: out of memory\n"


def test_memory_of_a_gpu_is_counted_from_before_a_contenders_first_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held, peak = [5], [0]
    monkeypatch.setattr("torch.cuda.memory_allocated", lambda device: held[0])
    monkeypatch.setattr("torch.cuda.reset_peak_memory_stats", lambda device: peak.__setitem__(0, 0))
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda device: peak[0])
    kept: set[str] = set()

    def call(name: str, keeps: int, works: int) -> None:
        held[0] += 0 if name in kept else keeps
        kept.add(name)
        peak[0] = max(peak[0], held[0] + works)

    calls = {
        name: partial(call, name, *memory)
        for name, memory in {"a: x": (10, 3), "a: y": (20, 4), "b: x": (0, 6)}.items()
    }
    assert _measure.tried(calls, torch.device("cuda")) == {"a: x": 13, "a: y": 34, "b: x": 6}


def test_medians_and_percentiles_are_milliseconds() -> None:
    assert _measure.summary([0.002]) == {"median_ms": 2.0, "p90_ms": 2.0}
    found = _measure.summary([i / 1000 for i in range(1, 20)])
    assert found == {"median_ms": 10.0, "p90_ms": 18.0}


def test_rows_are_printed_in_columns_and_written_with_the_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"net": "cnn", "ms": 1.5}, {"net": "mlp", "ms": 12.25, "times": 3}]
    path = tmp_path / "deep" / "rows.json"
    _measure.report(rows, path)
    assert capsys.readouterr().out.splitlines() == [
        "net     ms  times", "cnn    1.5       ", "mlp  12.25      3"
    ]  # fmt: skip
    written = json.loads(path.read_text())
    assert written["rows"] == rows
    assert {"date", "device", "torch", "python"} <= set(written["machine"])


def test_options_of_every_measurement() -> None:
    options = _measure.parser("what is measured").parse_args(["--rounds", "2"])
    assert (options.rounds, options.json) == (2, None)
