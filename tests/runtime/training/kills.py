"""A file layer that dies on request, and a run that dies with it and is resumed."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import newtriton as nt
from newtriton.runtime.training import files
from newtriton.runtime.training.loop import fit

DIED = 137  # the status of a process that was killed
CHANGING = ("open", "write", "fsync", "mkdir", "replace", "symlink", "unlink", "rmdir")


class Killed(BaseException):
    """The end of a process: no `except Exception` and no `except OSError` sees it."""


class Dying:
    """Stands in for the module `os`, and ends the process at a call that changes something.

    Args:
        at: the number of that call, from 1; 0 for none.
        half: whether that call has been made, to half of its bytes where it writes.
        lost: whether what has not been flushed to the disk is lost, as when the power fails.
        end: ends the process; raises `Killed` unless given.
        linkless: whether the file system has no links.

    Attributes:
        calls: how many have been made.
    """

    def __init__(
        self,
        at: int = 0,
        half: bool = False,
        lost: bool = False,
        end: Callable[[], Any] | None = None,
        linkless: bool = False,
    ) -> None:
        self.linkless = linkless
        self.at, self.half, self.lost, self.calls = at, half, lost, 0
        self.end = end or self._raise
        self.unflushed: dict[int, Path] = {}

    @staticmethod
    def _raise() -> None:
        raise Killed

    def __getattr__(self, name: str) -> Any:
        call = getattr(os, name)
        if name not in CHANGING:
            return call

        def counted(*arguments: Any) -> Any:
            self.calls += 1
            if self.at and self.calls > self.at:
                raise Killed  # whatever cleans up after the end
            if self.calls == self.at:
                with suppress(OSError):  # a call that fails is the last one, too
                    if self.half:
                        self._made(name, call, *_half(name, arguments))
                self._die()
            return self._made(name, call, *arguments)

        return counted

    def _made(self, name: str, call: Callable[..., Any], *arguments: Any) -> Any:
        """Makes a call, and notes which files are not on the disk."""
        if name == "symlink" and self.linkless:
            raise OSError(errno.EPERM, "no links")
        result = call(*arguments)
        if name == "open" and arguments[1] & os.O_WRONLY:
            self.unflushed[result] = Path(arguments[0])
        if name == "fsync":
            self.unflushed.pop(arguments[0], None)
        return result

    def _die(self) -> None:
        """Ends the process, and loses what was not flushed."""
        for path in self.unflushed.values() if self.lost else ():
            os.truncate(path, path.stat().st_size // 2)
        self.end()


class Full(Dying):
    """A disk that is full at a call, or a folder that cannot be written.

    Args:
        at: the number of the call.
        code: the number of the error.
        lasting: whether all calls after it fail too.
    """

    def __init__(self, at: int, code: int, lasting: bool = False) -> None:
        super().__init__(at, end=self._full)
        self.code, self.lasting = code, lasting

    def _full(self) -> None:
        self.at = self.calls + 1 if self.lasting else 0
        raise OSError(self.code, os.strerror(self.code))


def _half(name: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments of a call of which half is made."""
    if name != "write":
        return arguments
    return arguments[0], arguments[1][: len(arguments[1]) // 2]


def _noisy(x: Tensor, generator: torch.Generator) -> Tensor:
    return x + 0.1 * torch.randn(x.shape, generator=generator)


class Run:
    """A short run with all that has a state: an average, momentum, dropout, batch norm, growth.

    Args:
        folder: where it is saved.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        draw = torch.Generator().manual_seed(0)
        x, y = torch.randn(26, 5, generator=draw), torch.randint(3, (26,), generator=draw)
        net = nt.Sequential(
            nt.Linear(4), nt.BatchNorm1d(), nt.Tanh(), nt.Dropout(0.2), nt.Linear(3)
        )
        self.model = nt.compile(net, (5,), nt.CrossEntropyLoss(), seed=1, device="cpu")
        self.optimizer = nt.KFAC(self.model, every=(1, 2), average=0.9)
        self.data = nt.GrowingBatches(x, y, 4, 10, steps=8, seed=2, transform=_noisy)
        self.validation = [(x, y)]

    def __call__(self, resume: str = "auto") -> dict[str, Any]:
        """Trains to the end, and returns all that another run has to agree in."""
        parts = self.model, self.optimizer, self.data, self.validation
        history = fit(
            *parts, epochs=2, progress=False, average=True,
            checkpoint=self.folder, checkpoint_every=2, resume=resume,
        )  # fmt: skip
        for step in history.steps:
            del step["seconds"]
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "data": self.data.state_dict(),
            "steps": history.steps,
            "epochs": [(e.number, e.loss, e.validation_loss) for e in history.epochs],
            "weights": (self.folder / "weights.safetensors").read_bytes(),
        }


def killed(folder: Path, monkeypatch: pytest.MonkeyPatch, dying: Dying) -> None:
    """Trains in a folder until a call kills the run."""
    with monkeypatch.context() as patch:
        patch.setattr(files, "os", dying)
        with pytest.raises(Killed):
            Run(folder)()


@cache
def unbroken() -> tuple[dict[str, Any], int]:
    """What a run comes to that nothing ends, and how many calls it makes."""
    counting = Dying()
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "os", counting)
        return Run(Path(folder) / "run")(), counting.calls


def in_child(folder: Path, dying: Dying) -> int:
    """Trains in a process of its own, which may die; returns its status."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    files.os = dying  # type: ignore[attr-defined]
    try:
        Run(folder)()
        os._exit(0)
    finally:
        os._exit(1)


def trial(seed: int, folder: Path) -> str:
    """Kills a run at one to three calls, really, and compares what is resumed bit for bit.

    Half of a call may have been made, and what was not flushed may be lost. Every fourth run dies
    where there are no links.
    """
    linkless = seed % 4 == 3
    torch.set_num_threads(1)  # a forked process has no others
    draw, (whole, calls), done = np.random.default_rng(seed), unbroken(), list[str]()
    for _ in range(int(draw.integers(1, 4))):
        at, half, lost = int(draw.integers(1, calls + 1)), draw.random() < 0.5, draw.random() < 0.5
        dying = Dying(at, half, lost, end=lambda: os._exit(DIED), linkless=linkless)
        status = in_child(folder / "run", dying)
        assert status in (0, DIED), f"seed {seed}: status {status} after {done}, then call {at}"
        if status == DIED:
            done.append(f"call {at}{', half of it' * half}{', unflushed lost' * lost}")
    found = differing(whole, Run(folder / "run")())
    assert not found, f"seed {seed}: killed at {done}, resumed with another {found[0]}"
    where = ", without links" if linkless else ""
    return f"resumed after {len(done)} kill{'s' * (len(done) != 1)}{where}"


def differing(one: Any, other: Any, place: str = "") -> list[str]:
    """The places where two values are not the same bits."""
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return [f"{place}: {[*one]} and {[*other]}"]
        return [d for name in one for d in differing(one[name], other[name], f"{place}.{name}")]
    if isinstance(one, (list, tuple)) and type(one) is type(other) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [d for i, (a, b) in pairs for d in differing(a, b, f"{place}.{i}")]
    if isinstance(one, Tensor):
        same = one.dtype == other.dtype and torch.equal(one, other)
        return [] if same and one.stride() == other.stride() else [place]
    return [] if repr(one) == repr(other) else [place]
