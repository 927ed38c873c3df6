"""Failures injected into runs: in data, validation, callbacks and steps, drawn from a seed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import newtriton as nt
from newtriton.runtime.training.loop import fit

from .kills import differing


class Injected(Exception):
    """An error of a user's own code."""


ERRORS = (Injected, KeyboardInterrupt, SystemExit, MemoryError, ValueError)
NEVER = 1 << 30


class Fuse:
    """Raises an error at one of its calls.

    Args:
        at: the number of that call, from 0.
        error: what is raised.
    """

    def __init__(self, at: int = NEVER, error: type[BaseException] = Injected) -> None:
        self.at, self.error, self.calls, self.raised = at, error, 0, None

    def __call__(self) -> None:
        self.calls += 1
        if self.calls - 1 == self.at:
            self.raised = self.error("injected")
            raise self.raised


class Samples(Dataset):
    """A data set of PyTorch's kind that draws from the global generator."""

    def __init__(self, x: Tensor, y: Tensor, fuse: Fuse) -> None:
        self.x, self.y, self.fuse = x, y, fuse

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        self.fuse()
        return self.x[i] + 0.1 * torch.randn(5), self.y[i]


def _loader(x: Tensor, y: Tensor, fuse: Fuse) -> Any:
    order = torch.Generator().manual_seed(3)
    return DataLoader(Samples(x, y, fuse), batch_size=6, shuffle=True, generator=order)


def _growing(x: Tensor, y: Tensor, fuse: Fuse) -> Any:
    def transform(part: Tensor, generator: torch.Generator) -> Tensor:
        fuse()
        return part + 0.1 * torch.randn(part.shape, generator=generator)

    # Of these sizes no epoch, wherever it begins, leaves one sample, which batch norm refuses.
    return nt.GrowingBatches(x, y, 4, 10, steps=9, seed=2, transform=transform)


class Listed:
    """Batches in a fixed order."""

    def __init__(self, x: Tensor, y: Tensor, fuse: Fuse) -> None:
        self.batches, self.fuse = [(x[i : i + 6], y[i : i + 6]) for i in range(0, 24, 6)], fuse

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self.batches:
            self.fuse()
            yield batch


DATA: dict[str, Callable[[Tensor, Tensor, Fuse], Any]] = {
    "loader": _loader,
    "growing": _growing,
    "list": Listed,
}
OPTIMIZERS: dict[str, Callable[[nt.Model], Any]] = {
    "kfac": lambda model: nt.KFAC(model, every=(1, 2), average=0.9),
    "fitre": lambda model: nt.FITRE(model, every=2, noise="wiener"),
    "newton-cg": lambda model: nt.NewtonCG(model, sample=1.0),
    "adam": lambda model: nt.TorchOptimizer(model, torch.optim.Adam, lr=0.01),
}
FUSES = ("data", "validation", "callback", "step")
Config = tuple[str, str, int | None]


class Run:
    """A short run, parts of which may fail.

    Args:
        config: data, optimizer and the steps between two saves within an epoch.
        folder: where it is saved; None for nowhere.
        fuses: what fails, by name; nothing unless given.
    """

    def __init__(
        self, config: Config, folder: Path | None, fuses: dict[str, Fuse] | None = None
    ) -> None:
        data, optimizer, self.every = config
        self.folder = folder
        self.fuses = {name: Fuse() for name in FUSES} | (fuses or {})
        draw = torch.Generator().manual_seed(0)
        x, y = torch.randn(24, 5, generator=draw), torch.randint(3, (24,), generator=draw)
        torch.manual_seed(5)  # that the loader's samples draw from
        net = nt.Sequential(
            nt.Linear(4), nt.BatchNorm1d(), nt.Tanh(), nt.Dropout(0.2), nt.Linear(3)
        )
        self.model = nt.compile(net, (5,), nt.CrossEntropyLoss(), seed=1, device="cpu")
        self.optimizer = OPTIMIZERS[optimizer](self.model)
        self.data = DATA[data](x, y, self.fuses["data"])
        self.validation = Listed(x, y, self.fuses["validation"])
        self.history = nt.History()
        step = self.optimizer.step

        def failing(*batch: Any) -> Any:
            report = step(*batch)
            self.fuses["step"]()
            return report

        self.optimizer.step = failing

    def __call__(self, resume: str = "never") -> nt.History:
        """Trains to the end."""
        saved: dict[str, Any] = {"history": self.history}
        if self.folder is not None:
            saved = {"checkpoint": self.folder, "resume": resume, "checkpoint_every": self.every}
        self.history = fit(
            self.model, self.optimizer, self.data, self.validation, epochs=3, progress=False,
            callbacks=[lambda history: self.fuses["callback"]()], **saved,
        )  # fmt: skip
        return self.history

    def outcome(self) -> dict[str, Any]:
        """All that another run has to agree in."""
        steps = [{n: v for n, v in s.items() if n != "seconds"} for s in self.history.steps]
        epochs = [(e.number, e.loss, e.validation_loss) for e in self.history.epochs]
        parts = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        return {**parts, "steps": steps, "epochs": epochs}


@cache
def whole(config: Config) -> dict[str, Any]:
    """What a run comes to that nothing fails in."""
    run = Run(config, None)
    run()
    return run.outcome()


def trial(seed: int, folder: Path) -> str:
    """Trains with a failure in data, validation, callbacks or after a step, and goes on.

    Returns:
        "resumed", or "went on" for a run that was not saved; "unharmed" where nothing failed.
    """
    draw = np.random.default_rng(seed)
    every = [None, 1, 2, 3][int(draw.integers(4))]
    config = str(draw.choice([*DATA])), str(draw.choice([*OPTIMIZERS])), every
    name, error = str(draw.choice(FUSES)), ERRORS[int(draw.integers(len(ERRORS)))]
    most = {"data": 40, "validation": 12, "callback": 3, "step": 12}[name]
    fuse, saved = Fuse(int(draw.integers(most)), error), bool(draw.random() < 0.7)
    said = f"seed {seed}: {config}, {error.__name__} in {name} at {fuse.at}, saved {saved}"
    run = Run(config, folder / "run" if saved else None, {name: fuse})
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*is not restored")
            history = run()
        assert fuse.raised is None or error is KeyboardInterrupt, f"{said}: the error is lost"
        assert history.interrupted == (fuse.raised is not None), f"{said}: {history}"
    except ERRORS as raised:
        assert raised is fuse.raised, f"{said}: {raised!r} has come through"
    if fuse.raised is None:
        return "unharmed"
    return _resumed(config, run, said) if saved else _gone_on(run, said)


def _resumed(config: Config, run: Run, said: str) -> str:
    """Goes on with a saved run, which comes to what it would have come to."""
    again = Run(config, run.folder)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is not restored")
        warnings.filterwarnings("error", message=".*is not what it was before")
        again("auto")
    found = differing(again.outcome(), whole(config))
    assert not found, f"{said}: resumed, it differs in {found[:3]}"
    return "resumed"


def _gone_on(run: Run, said: str) -> str:
    """Trains on with the same objects: the history counts the steps that were made."""
    history = run.history
    made = run.fuses["step"].calls - (run.fuses["step"].raised is not None)
    assert history.count == len(history.steps) == made, f"{said}: {history.count} of {made} steps"
    assert all(np.isfinite(step["loss"]) for step in history.steps), said
    before = len(history.epochs)
    run()
    assert len(history.epochs) == before + 3, f"{said}: {history}"
    return "went on"
