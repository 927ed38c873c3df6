"""`python -m newtriton`, by itself and on ranks that torchrun starts, and starts again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import newtriton.__main__
from newtriton.command.main import main

from .sources import ROOT

NET = '''
import os
import signal

import newtriton as nt
from newtriton.runtime.optimizers.second_order import SecondOrder

steps, step = iter(range(100)), SecondOrder.step


def failing(*batch):
    """A step of the second epoch in which this rank ends, in another way each time."""
    if next(steps) == FATAL[attempt]:
        if attempt == "0":
            raise RuntimeError("an error of the user's")
        os.kill(os.getpid(), signal.SIGKILL)
    return step(*batch)


FATAL = {"0": 3, "1": 1}  # in which step, by what torchrun has counted
attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT")
if os.environ.get("RANK") == "1" and attempt in FATAL:
    SecondOrder.step = failing
net = nt.Sequential(nt.Flatten(), nt.Linear(10))
'''
TORCHRUN = "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "2"


def started(*command: str) -> subprocess.CompletedProcess[str]:
    given = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = (sys.executable, "-m", *command)
    return subprocess.run(
        command, env=given, capture_output=True, text=True, timeout=300, check=False
    )


def test_the_module_is_the_command_line() -> None:
    assert newtriton.__main__.main is main
    assert started("newtriton", "--help").stdout.startswith("usage: newtriton")


def test_torchrun_trains_on_ranks_again_where_one_fails(tmp_path: Path) -> None:
    """One rank raises an error, is killed when all have been started again, and then lives on."""
    (tmp_path / "net.py").write_text(NET)
    run = (
        "train", "--data", "digits", "--net", f"{tmp_path / 'net.py'}:net", "--batch-size", "500",
        "--no-report", "--resume", "auto", "--output", str(tmp_path / "run"),
    )  # fmt: skip
    found = started(*TORCHRUN, "-m", "newtriton", *run, "--epochs", "2", "--timeout", "60")
    assert found.returncode == 0, found.stderr
    told = [line for line in found.stderr.splitlines() if line.startswith("error: ")]
    assert told[0].startswith(
        "error: rank 1 has raised an error, which ends the run on all: RuntimeError: an error of "
        "the user's"
    )
    assert "RuntimeError: an error of the user's\n" in found.stderr  # of the rank itself
    assert found.stderr.count("Traceback") == 1
    rows = [line.split()[0] for line in found.stdout.splitlines() if line.split()[0].isdecimal()]
    assert rows == ["1", "2"]  # the first epoch is not made again
    assert found.stdout.count("history, picture and weights are in") == 1  # one rank speaks
    assert "exitcode: -9" in found.stderr
    assert main([*run, "--epochs", "3"]) == 0
