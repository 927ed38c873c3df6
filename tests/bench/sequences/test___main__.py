"""The command counts unless a GPU is asked for."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import newtriton as nt
from newtriton.bench.second_order import gpt
from newtriton.bench.sequences import __main__ as command
from newtriton.bench.sequences import table


def test_what_is_counted_is_printed_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = gpt(1, 64, 8, 20, 2)
    monkeypatch.setattr(table, "growing", lambda: table.counted("gpt", small))
    monkeypatch.setattr(table, "counted", lambda name, network: [{"net": name, "peak_MB": 1.5}])
    monkeypatch.setattr(sys, "argv", ["sequences", "--json", str(tmp_path / "rows.json")])
    command.main()
    assert "1.5" in capsys.readouterr().out
    written = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [row["net"] for row in written] == ["gpt", "vit"]


def test_a_gpu_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["sequences", "--gpu", "--steps", "first"])
    with pytest.raises(nt.NewtritonError, match="PyTorch sees none"):
        command.main()
