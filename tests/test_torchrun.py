"""`python -m newtriton`, by itself and on ranks that torchrun starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import newtriton.__main__
from newtriton.command.main import main

from .sources import ROOT

RUN = ("train", "--data", "digits", "--net", "mlp", "--batch-size", "700")


def started(*command: str) -> subprocess.CompletedProcess[str]:
    given = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = (sys.executable, "-m", *command)
    return subprocess.run(
        command, env=given, capture_output=True, text=True, timeout=300, check=False
    )


def test_the_module_is_the_command_line() -> None:
    assert newtriton.__main__.main is main
    assert started("newtriton", "--help").stdout.startswith("usage: newtriton")


def test_torchrun_trains_on_ranks_and_one_process_goes_on(tmp_path: Path) -> None:
    torchrun = "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "newtriton"
    first = started(*torchrun, *RUN, "--epochs", "1", "--output", str(tmp_path / "run"))
    assert first.returncode == 0, first.stderr
    assert first.stdout.count("history, picture and weights are in") == 1  # one rank speaks
    run = "--epochs", "2", "--output", str(tmp_path / "run"), "--resume"
    assert main([*RUN, *run]) == 0
