"""Damaged command lines end in one line on stderr; the text of a name never becomes code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from newtriton.command.main import main

from ..sources import ROOT
from .lines import USER, trial


@pytest.mark.parametrize("first", range(0, 40, 10))
def test_damaged_lines_do_what_they_say_or_say_what_is_wrong(first: int, tmp_path: Path) -> None:
    for seed in range(first, first + 10):
        folder = tmp_path / str(seed)
        folder.mkdir()
        trial(seed, folder)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("train --net user.py:leaving --data user.py:data", "failed with SystemExit: 0"),
        ("train --net user.py:failing --data user.py:data", "ValueError: two lines ("),
        ("train --data user.py:data --set a\x1b[31m\nb", r"--set a\x1b[31m b: write it as"),
        ("train --config \udcff.toml", r"\udcff.toml cannot be read"),
        ("inspect --net user.py:net --input " + "9" * 40, "give the shape of one sample"),
    ],
)
def test_what_is_wrong_is_one_line_that_can_be_printed(
    line: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "user.py").write_text(USER, encoding="utf-8")
    arguments = line.split(" ")
    output = ["--output", "run"] if arguments[0] == "train" else []
    assert main([*arguments, *output]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and said in printed
    assert printed.count("\n") == 1 and printed[:-1].isprintable()


def test_a_folder_may_have_a_name_that_no_text_has(tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(USER, encoding="utf-8")
    command = [sys.executable, "-m", "newtriton.command.main", "train", "--epochs", "1"]
    command += ["--data", f"{tmp_path}/user.py:data", "--net", f"{tmp_path}/user.py:net"]
    command += ["--output", f"{tmp_path}/run\udcff"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run\udcff" / "weights.safetensors").is_file()
