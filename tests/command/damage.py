"""Damaged files of records, options and weights: one error names them, or they are read."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import save

import newtriton as nt
from newtriton.bench import battery
from newtriton.bench._measure import known_rows
from newtriton.bench.protocol.results import Result
from newtriton.command.configuration import expanded
from newtriton.command.inspect import weights
from newtriton.command.train import add_options
from newtriton.runtime.training.epoch import Epoch

from ..damage import bounded, damage

OPTIONS = b"""
net = "mlp"
epochs = 3
damping = 1e-2
average = true
[set]
every = [1, 20]
noise = "none"
"""
ROWS: list[dict[str, Any]] = [
    {"problem": "curves", "optimizer": "fitre", "setting": "a", "seed": [0, 1], "goal": [0.5, None]}
]


class Format(NamedTuple):
    """A format of a single file.

    Attributes:
        data: a small good file.
        read: reads it, and uses what is in it.
    """

    data: bytes
    read: Callable[[Path], object]


def _history() -> bytes:
    steps = [{"step": i, "epoch": 1, "seconds": 0.1 * i, "loss": 1 / i} for i in (1, 2, 3)]
    return nt.History([Epoch(1, 3, 0.3, 0.5, 0.6, 0.7)], steps).text().encode()


def _shown(path: Path) -> str:
    history = nt.History.load(path)
    return f"{history} {history.refused(1)} {history.epochs_to(0.5)} {history.seconds}"


def _options(path: Path) -> object:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_options(parser)
    return expanded(["--config", str(path)], add_options)


def _weighed(path: Path) -> None:
    model = nt.compile(nt.Linear(3), (4,), nt.CrossEntropyLoss(), device="cpu")
    model.load_state_dict(weights(path))


def _rows(rows: list[dict[str, Any]]) -> bytes:
    return json.dumps({"machine": {"device": "cpu"}, "rows": rows}, indent=1).encode()


FORMATS = {
    "history": Format(_history(), _shown),
    "options": Format(OPTIONS, _options),
    "weights": Format(save({"weight": torch.ones(3, 4), "bias": torch.zeros(3)}), _weighed),
    "rows": Format(_rows([{"a": 1}]), lambda path: (known_rows(path, "a"), Result.load(path))),
    "battery": Format(_rows(ROWS), battery.Book),
}


def trial(seed: int, folder: Path) -> str:
    """Damages a file, and reads it."""
    draw = np.random.default_rng(seed)
    name = [*FORMATS][seed % len(FORMATS)]
    path = folder / name
    path.write_bytes(FORMATS[name].data)
    what = f"seed {seed}, {damage(draw, path)}"
    try:
        with bounded(what):
            FORMATS[name].read(path)
    except nt.NewtritonError as error:
        said = str(error)
        named = str(path) in said or "load_state_dict" in said
        assert named, f"{what}: {said!r} names no file"
        assert len(said) < 4000, f"{what}: {said!r}"
        return f"{name}: refused"
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
    return f"{name}: read"
