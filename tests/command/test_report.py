"""`newtriton report`: one page of several runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from newtriton.command import main as cli
from tests.command.test_main import one_line
from tests.runtime.reporting.records import history


def test_runs_become_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.json", "b.json"):
        history().save(name)
    assert cli.main(["report", "a.json", "b.json"]) == 0
    assert "report.html" in capsys.readouterr().out
    text = Path("report.html").read_text(encoding="utf-8")
    assert "a.json" in text and "b.json" in text
    assert cli.main(["report", "a.json", "--output", "deep/page.html"]) == 0
    assert Path("deep/page.html").exists()


def test_what_is_no_run_takes_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(tmp_path / "no")]) == 2
    assert "is not there" in one_line(capsys.readouterr().err)
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "holds no run" in one_line(capsys.readouterr().err)
