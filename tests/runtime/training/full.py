"""Runs whose disk is full, or whose folder cannot be written, at a call: told, then resumed."""

from __future__ import annotations

import errno
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest

import newtriton as nt
from newtriton.runtime.training import files

from .damage import Parts
from .kills import Dying, Full, differing

CODES = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EIO)


def _trained(folder: Path, disk: Dying | None = None) -> tuple[Any, ...]:
    """What two epochs come to, saved after each step."""
    fresh = Parts()
    with pytest.MonkeyPatch.context() as patch:
        if disk is not None:
            patch.setattr(files, "os", disk)
        history = fresh.train(folder, 2, "auto")
    state = fresh.state()
    for step in history.steps:
        del step["seconds"]
    weights = (folder / "weights.safetensors").read_bytes()
    return state["model"], state["optimizer"], state["data"], history.steps, weights


@cache
def unbroken() -> tuple[tuple[Any, ...], int]:
    """What a run comes to where there is room, and how many calls it makes."""
    with TemporaryDirectory() as folder:
        counting = Dying()
        return _trained(Path(folder) / "run", counting), counting.calls


def trial(seed: int, folder: Path) -> str:
    """Fills the disk at a call, makes room again, and resumes the run."""
    draw, (whole, calls) = np.random.default_rng(seed), unbroken()
    at, code = int(draw.integers(1, calls + 1)), CODES[draw.integers(len(CODES))]
    lasting = bool(draw.random() < 0.5)
    what = f"seed {seed}, {errno.errorcode[code]} at call {at}{' and on' * lasting}"
    told = "not needed"
    try:
        _trained(folder / "run", Full(at, code, lasting))
    except nt.NewtritonError as error:
        told = "told"
        said = str(error)
        assert str(folder / "run") in said and "cannot be written" in said, f"{what}: {said!r}"
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
    found = differing(whole, _trained(folder / "run"))
    assert not found, f"{what}: resumed with another {found[0]}"
    return f"{told}, resumed"
