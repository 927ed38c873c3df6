"""`newtriton plot`: what runs recorded as a picture."""

from __future__ import annotations

from pathlib import Path

import pytest

from newtriton.command import main as cli
from tests.command.test_main import one_line
from tests.runtime.reporting.records import history


def test_runs_become_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    history().save("a.json")
    assert cli.main(["plot", "a.json", "--output", "a.png"]) == 0
    assert Path("a.png").read_bytes().startswith(b"\x89PNG")
    arguments = ["--what", "damping", "rho", "--against", "steps", "seconds"]
    assert cli.main(["plot", "a.json", "a.json", "--output", "deep/b.svg", *arguments]) == 0
    assert "ρ" in Path("deep/b.svg").read_text(encoding="utf-8")
    assert "deep/b.svg" in capsys.readouterr().out


def test_unusable_values_take_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    history().save("a.json")
    for arguments, message in [
        (["--output", "a.docx"], "a.docx cannot be drawn"),
        (["--output", "a.png", "--what", "lr"], "what is 'lr': one of 'loss', 'accuracy', 'rho'"),
    ]:
        assert cli.main(["plot", "a.json", *arguments]) == 2
        assert message in one_line(capsys.readouterr().err)
    assert not Path("a.png").exists()
