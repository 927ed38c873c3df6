"""The check prints a line per kernel, keeps them as data, and says whether all is well."""

import argparse
import json

import pytest

from newtriton.command import check
from newtriton.command.main import main
from newtriton.runtime.checking.disassembly import Report
from newtriton.runtime.checking.numbers import Error


def test_lines_are_written_as_data(tmp_path):
    path = tmp_path / "deep" / "check.json"
    report = Report("vgg11 tf32 c", "sm_90", registers=90, copies={16: 24})
    check.store(path, [Error("a", 1e-7, 2e-5), Error("b", 1.0, 2e-5), report])
    data = json.loads(path.read_text())
    assert [row["good"] for row in data["rows"]] == [True, False, True]
    (worst,) = data["summary"]
    assert worst["precision"] == "tf32" and worst["most_registers"] == 90 and not worst["faults"]
    assert set(data["machine"]) == {"date", "device", "torch", "triton"}


def test_unknown_names_are_refused(capsys: pytest.CaptureFixture[str]):
    assert main(["check", "--only", "code", "--nets", "resnet"]) == 2
    assert "resnet" in capsys.readouterr().err


def test_a_wrong_line_gives_status_one(monkeypatch: pytest.MonkeyPatch, capsys):
    lines = [Error("fine", 0.0, 1.0), Error("broken", 2.0, 1.0)]
    monkeypatch.setattr(check, "compared", lambda options: iter(lines))
    options = argparse.Namespace(
        nets=["vgg11"], targets=["sm_90"], only="numbers", json=None, gpu=False
    )
    assert check.run(options) == 1
    assert "2 kernels, 1 of them" in capsys.readouterr().out
