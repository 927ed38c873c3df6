"""The command prints the tables and writes their rows."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from newtriton.bench.scaling import __main__ as command
from newtriton.bench.scaling import measure, networks, table


def test_the_model_needs_no_ranks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(table, "TASKS", {"VGG19": networks.TASKS["VGG19"]})
    monkeypatch.setattr(sys, "argv", ["scaling", "--json", str(tmp_path / "rows.json")])
    command.main()
    assert "| VGG19 | owned | " in capsys.readouterr().out
    written = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert len(written) == 1 + len(table.MEMORIES) * len(table.RANKS)


def test_measurements_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"network": "x", "memory": "owned", "ranks": 2, "steps": 3, "model": 8, "counted": 9}
    monkeypatch.setattr(measure, "sent", lambda: [row])
    monkeypatch.setattr(measure, "timed", lambda memory, windows: [])
    monkeypatch.setattr(sys, "argv", ["scaling", "--gloo"])
    command.main()
    assert "| x | owned | 9 (8) |" in capsys.readouterr().out
