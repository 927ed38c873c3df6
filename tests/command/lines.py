"""Damaged command lines at random: each does what it says, or ends in one line on stderr.

Nothing but the run's folder is written, and no text becomes code.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path
from random import Random

import torch

from newtriton.command.main import main

MARK = "hacked"  # the file that hostile text would make
USER = """
import torch
import newtriton as nt
from torch import nn

net = nt.Sequential(nt.Linear(3), nt.Tanh(), nt.Linear(3))
loss = nt.CrossEntropyLoss
number = 3
x, y = torch.randn(8, 4, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3
data = ((x, y), (x[:4], y[:4]))
odd = ((x, y[:3]), (x, y))
class Module(nn.Sequential):
    def __init__(self, inputs, classes):
        super().__init__(nn.Linear(inputs, classes))
def made(classes):
    return nt.Linear(classes)
def failing():
    raise ValueError("two\\nlines")
def leaving():
    raise SystemExit(0)
def load(root="."):
    return data
def half(optimizer):
    return torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
"""
CONFIG = """
net = "user.py:net"
epochs = 1
[set]
damping = 0.1
"""
LINES = [
    "train --data user.py:data --net user.py:net --optimizer fitre --epochs 1 --batch-size 4 "
    "--seed 2 --output run --set burn_in=1 --set every=1,2 --weight-decay 0.01",
    "train --data user.py:load --data-dir . --net user.py:Module --optimizer sgd --lr 0.1 "
    "--set momentum=0.5 --epochs 1 --output run --checkpoint-every 1 --keep 1",
    "train --data user.py:data --net user.py:made --classes 3 --loss ce --optimizer kfra "
    "--average --epochs 1 --output run --damping 0.5 --backend aten --resume auto",
    "train --config run.toml --data user.py:data --output run",
    "train --data user.py:data --net user.py:net --optimizer adam --set schedule=user.py:half "
    "--epochs 1 --output run",
    "inspect --net user.py:net --input 4 --batch 8",
    "inspect --net user.py:net --input 4 --program hvp",
    "inspect --net user.py:net --data user.py:data --diagnose trace --batch 4 --all",
    "inspect --net user.py:net --data user.py:data --diagnose errors --of weight",
    "inspect --net user.py:net --data user.py:data --diagnose alignment --damping 0.1",
    "bench",
    "check --only all --workers many --seconds long",
    "--help",
]
VALUES = [
    "", "-1", "0", "1e400", "nan", "-inf", "3.5", "2" * 40, "1_000", "true", "none", "text", "é",
    "a\nb", "a\0b", "\udcff.py:net", "../../etc/passwd", "/dev/null", "/proc/none/run", ".", "/",
    "x" * 5000, "user.py", "user.py:", ":net", "user.py:nothing", "user.py:number", "user.py:odd",
    "user.py:failing", "user.py:leaving", "missing.py:net", "bad.py:net", "missing.module:net",
    "user.py:net.layers.0", "user.py:__builtins__", "run.toml", "broken.toml", "taken",
    "user.py:net; import os", f"open('{MARK}', 'w')", f"__import__('os').system('touch {MARK}')",
    f"$(touch {MARK})", f"`touch {MARK}`", "%s%n{0}", "\x1b[31m", "--", "-", "=", "--epochs",
    "1,2,3", "[1, 2]", "{'a': 1}", "lambda: 0", "(" * 300, "ce", "mlp", "kfac", "digits", "4x4",
    "4x-4", "damping=1", "damping", "nothing=1", "damping=", "every=0,1", "seed=nan", "30s", "0m",
    "-5s", "1d", "best", "previous",
]  # fmt: skip
OPTIONS = [
    "--nothing", "--epoch", "--lr", "--radius", "--damping", "--classes", "--init", "--batch-norm",
    "--average", "--resume", "--set", "--config", "--data-dir", "--preprocessing", "--loss",
    "--backend", "--weights", "--graph", "--kernels", "--input", "--diagnose", "--gpu", "--json",
    "--help", "-h", "--checkpoint-every", "--micro-batch", "--threads", "--keep", "--seed",
    "--timeout", "--memory",
]  # fmt: skip
CONFIGS = [
    "nothing = 1", "epochs = 'many'", "epochs = [1, 2]", "net = 3", "set = 3", "[set]\nx = {y = 1}",
    "[set]\nnothing = 1", "[set]\ndamping = 'text'", "[set]\nevery = [1, 2, 3]", "config = 'a'",
    "output = '/dev/null/run'", "seed = 1979-05-27", "epochs = nan", "average = 1", "'\\u0000' = 1",
    "help = true", "'--epochs' = 1", "'' = 1", "epochs = false", "'a b' = 1", "net = 'user.py:net'",
    "[", "a = ", "\x00", "a = 1\na = 2", "[net]\nx = 1", "[[set]]\nx = 1", "set = ['damping=1']",
]  # fmt: skip


def trial(seed: int, folder: Path) -> str:
    """Gives a damaged command line to the program, in a folder of its own.

    Args:
        seed: decides what is damaged, and how.
        folder: an empty folder.

    Returns:
        how it ended: "done", "failed" (status 1) or "refused" (status 2).
    """
    rng = Random(seed)
    inside = folder / "inside"
    inside.mkdir()
    _prepare(rng, inside)
    arguments = _damaged(rng, rng.choice(LINES).split(" "))
    status, said = _ended(arguments, inside)
    what = f"trial({seed}): {arguments!r} ended with status {status}"
    assert status in (0, 1, 2), what
    assert not (inside / MARK).exists(), f"{what}: its text has become code"
    assert [p.name for p in folder.iterdir()] == ["inside"], f"{what}: it left its folder"
    assert "Traceback" not in said, f"{what}: {said[-1000:]}"
    if status:
        lines = said.rstrip("\n").split("\n")
        assert len(lines) == 1 and lines[0].startswith("error: "), f"{what}: {said[-1000:]}"
        assert lines[0].isprintable() and len(lines[0]) < 2000, f"{what}: {said[-1000:]!r}"
    return {0: "done", 1: "failed", 2: "refused"}[status]


def _prepare(rng: Random, folder: Path) -> None:
    """Writes what command lines name."""
    config = rng.choice(CONFIGS) if rng.random() < 0.5 else CONFIG
    (folder / "user.py").write_text(USER, encoding="utf-8")
    (folder / "bad.py").write_text("net = (", encoding="utf-8")
    (folder / "run.toml").write_text(config, encoding="utf-8")
    (folder / "broken.toml").write_bytes(b"\xff\xfe[")
    (folder / "taken").write_text("a file", encoding="utf-8")


def _damaged(rng: Random, arguments: list[str]) -> list[str]:
    """Returns a command line with one or two things wrong in it."""
    for _ in range(rng.choice([1, 1, 1, 2])):
        at = rng.randrange(len(arguments))
        rest = arguments[:at], arguments[at + 1 :]
        arguments = rng.choice([
            [*rest[0], rng.choice(VALUES), *rest[1]],
            [*rest[0], rng.choice(VALUES), *rest[1]],
            [*rest[0], *rest[1]],
            [*arguments, rng.choice(OPTIONS)],
            [*arguments, rng.choice(OPTIONS), rng.choice(VALUES)],
            [*arguments, f"{rng.choice(OPTIONS)}={rng.choice(VALUES)}"],
            [*arguments, arguments[at]],
            [*arguments, "--config", rng.choice(["run.toml", rng.choice(VALUES)])],
            [*arguments, "--set", rng.choice(VALUES)],
            [*arguments, "--net", rng.choice(VALUES)],
            [rng.choice(["train", "inspect", "trian", ""]), *arguments[1:]],
        ]) or [""]  # fmt: skip
    return arguments


def _ended(arguments: list[str], folder: Path) -> tuple[object, str]:
    """Runs the program in a folder; returns its status, and what it wrote to stderr."""
    here, path, modules = Path.cwd(), [*sys.path], set(sys.modules)
    threads, errors = torch.get_num_threads(), io.StringIO()
    output = io.TextIOWrapper(io.BytesIO(), "utf-8")  # strict, as the terminal's
    os.chdir(folder)
    try:
        with (
            torch.random.fork_rng(),
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(errors),
        ):
            status: object = main(arguments)
    except SystemExit as ended:
        status = ended.code or 0
    except Exception as error:
        status = f"{type(error).__name__}: {error}"
    finally:
        os.chdir(here)
        sys.path[:] = path
        torch.set_num_threads(threads)
        for name in sys.modules.keys() - modules:
            if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]
    return status, errors.getvalue()
