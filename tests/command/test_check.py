"""The check prints a line per kernel, keeps them as data, and says whether all is well."""

import argparse
import json
import subprocess

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


@pytest.mark.parametrize(
    ("arguments", "halves"),
    [([], ["numbers", "code"]), (["--only", "numbers"], ["numbers"])],
)
def test_each_half_runs_where_it_can(
    monkeypatch: pytest.MonkeyPatch, tmp_path, arguments: list[str], halves: list[str]
):
    started = []

    def start(command: list[str], env: dict[str, str], check: bool) -> subprocess.CompletedProcess:
        started.append((command, env.get("TRITON_INTERPRET")))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.delenv("TRITON_INTERPRET")
    monkeypatch.setattr(subprocess, "run", start)
    path = tmp_path / "check.json"
    assert main(["check", *arguments, "--json", str(path)]) == 0
    assert [command[command.index("--only") + 1] for command, _ in started] == halves
    assert [interpreted for _, interpreted in started] == ["1", None][: len(halves)]
    names = [command[-1] for command, _ in started]
    alone = [str(path)]
    assert names == (alone if arguments else [str(path.with_stem(f"check-{h}")) for h in halves])
