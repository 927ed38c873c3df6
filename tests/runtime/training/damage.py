"""Run folders of which something is damaged: one error says so, or the run goes on to the bit."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import torch

import newtriton as nt
from newtriton.runtime.training.generations import CHECKSUMS
from newtriton.runtime.training.runs import PARTS, RunFolder
from newtriton.runtime.training.saving import Interval, Saving
from newtriton.runtime.training.signals import Noted

from ...damage import bounded, damage
from .kills import differing

LINKS = ("last", "best", "weights.safetensors", "history.json")
TARGETS = (
    "generations/000001", "generations/000003", "generations/../generations/000003", "nowhere", "/",
    "..", "/dev/zero", "last", "best", "generations", "last/weights.safetensors", "/etc/passwd",
)  # fmt: skip
LARGE = 1 << 24  # bytes that no file of these runs has, but a hole
OPTIONS = {"net": "mlp", "lr": 0.1, "damping": None}


class Parts:
    """A model, an optimizer and data, small enough that a run of them takes no time."""

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(0)
        x, y = torch.randn(8, 5, generator=draw), torch.randint(3, (8,), generator=draw)
        net = nt.Sequential(nt.Linear(4), nt.BatchNorm1d(), nt.Dropout(0.2), nt.Linear(3))
        self.model = nt.compile(net, (5,), nt.CrossEntropyLoss(), seed=1, device="cpu")
        self.optimizer = nt.KFAC(self.model, every=(1, 2))
        self.data = nt.Batches(x, y, 4, seed=2)

    def train(self, folder: Path, epochs: int, resume: str, **options: Any) -> nt.History:
        run = RunFolder(folder, OPTIONS)
        return nt.fit(
            self.model, self.optimizer, self.data, epochs=epochs, progress=False,
            checkpoint=run, checkpoint_every=1, resume=resume, **options,
        )  # fmt: skip

    def load(self, folder: Path, which: str) -> nt.History:
        """Takes up what a folder has."""
        run = RunFolder(folder, OPTIONS)
        parts = (self.model, self.optimizer, self.data)
        with Saving(run, *parts, None, Interval(), Noted()).begun(which) as resumed:
            return resumed.history

    def state(self) -> dict[str, Any]:
        """All that has a state."""
        parts = {"model": self.model, "optimizer": self.optimizer, "data": self.data}
        states = {name: part.state_dict() for name, part in parts.items()}
        return states | {"torch": torch.get_rng_state(), "numpy": np.random.get_state()}


@cache
def parts() -> Parts:
    """Those that all trials load into."""
    return Parts()


@cache
def good() -> Path:
    """The folder of a run of two epochs, saved after each step."""
    folder = Path(mkdtemp()) / "run"
    Parts().train(folder, 2, "never")
    return folder


@cache
def whole(which: str) -> tuple[dict[str, Any], str]:
    """What an undamaged folder has: all states, and the records."""
    loaded = parts()
    history = loaded.load(shutil.copytree(good(), Path(mkdtemp()) / "run", symlinks=True), which)
    return loaded.state(), history.text()


def reseal(generation: Path) -> None:
    """Makes checksums hold again, so that what reads the files themselves meets the damage."""
    path = generation / CHECKSUMS
    described = json.loads(path.read_bytes())
    for name in described["files"]:
        path_of = generation / name
        if path_of.is_file() and path_of.stat().st_size < LARGE and "/" not in name:
            data = path_of.read_bytes()
            described["files"][name] = hashlib.sha256(data).hexdigest()
            described["sizes"][name] = len(data)
    described.pop("checksum", None)
    sums = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    path.write_text(json.dumps(described | {"checksum": sums.hexdigest()}))


def _places(folder: Path) -> Iterator[Path]:
    """What may be damaged: files and links of a run, the last generation's more often."""
    last = folder / "generations" / (folder / "last").readlink().name
    yield from (folder / name for name in ("options.json", "lock", *LINKS))
    yield from [last / CHECKSUMS] * 3
    for name in PARTS:
        yield from [last / name] * 3


def _mislead(draw: np.random.Generator, path: Path) -> str:
    """Damages a link: it leads elsewhere, or a file that was damaged stands in its place."""
    there = path.read_bytes() if path.is_file() else path.readlink().as_posix().encode()
    target = TARGETS[draw.integers(len(TARGETS))]
    path.unlink()
    if draw.random() < 0.5:
        path.symlink_to(target)
        return f"{path.name} leads to {target}"
    path.write_bytes(there)
    return damage(draw, path)


def trial(seed: int, folder: Path) -> str:
    """Damages a file or a link of a run, and resumes it."""
    draw = np.random.default_rng(seed)
    run = folder / "run"
    shutil.copytree(good(), run, symlinks=True)
    places = [*_places(run)]
    path = places[draw.integers(len(places))]
    which = ("last", "auto", "best")[draw.integers(3)]
    sealed = path.name in PARTS and path.parent != run and draw.random() < 0.5
    done = (_mislead if path.name in LINKS and path.parent == run else damage)(draw, path)
    if sealed:
        reseal(path.parent)
    what = f"seed {seed}, {path.parent.name}/{done}{', checksums anew' * sealed}, {which}"
    before, there = parts().state(), _files(run)
    try:
        with bounded(what):
            history = parts().load(run, which)
    except nt.NewtritonError as error:
        said = str(error)
        assert str(run) in said, f"{what}: {said!r} names no file"
        assert len(said) < 2000, f"{what}: {said!r}"
        changed = differing(before, parts().state())
        assert not changed, f"{what}: refused, and {changed[0]} has changed"
        assert _files(run) == there, f"{what}: refused, and the folder has changed"
        return _gone_back(run, path, what)
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
    found = differing(whole(which), (parts().state(), history.text()))
    led = path in (run / "last", run / "best")  # to another generation, which cannot be told
    assert sealed or led or not found, f"{what}: silently another {found[0]}"
    return "other data" if found else "restored"


def _files(folder: Path) -> dict[str, object]:
    """What a folder holds, but for who has its lock."""
    found: dict[str, object] = {}
    for path in folder.rglob("*"):
        if path.is_symlink():
            found[str(path)] = path.readlink()
        elif path.is_file() and path.stat().st_size < LARGE and path.name != "lock":
            found[str(path)] = path.read_bytes()
        else:
            found[str(path)] = path.is_dir()
    return found


def _gone_back(run: Path, path: Path, what: str) -> str:
    """Goes on with the generation before, when what is in the way of all of them has been moved."""
    if path.parent == run and os.path.lexists(path):
        path.rename(run / "moved")
    try:
        history = parts().load(run, "previous")
    except Exception as error:
        raise AssertionError(
            f"{what}: refused, and then {type(error).__name__}: {error}"
        ) from error
    found = parts().state(), history.text()
    known = ("previous", "last") if path == run / "last" else ("previous",)
    same = any(not differing(whole(name), found) for name in known)
    assert same, f"{what}: refused, and the one before is {differing(whole('previous'), found)[0]}"
    return "refused, the one before restored"
