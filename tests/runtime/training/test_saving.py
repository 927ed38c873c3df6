"""A run that is saved in the middle of an epoch, and by signals, goes on to the bit."""

import os
import random
import signal
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, WeightedRandomSampler

import newtriton as nt
from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.training.loop import fit
from newtriton.runtime.training.saving import Interval, Saving

from .kills import differing

DRAW = torch.Generator().manual_seed(0)
X, Y = torch.randn(22, 5, generator=DRAW), torch.randint(3, (22,), generator=DRAW)


class Drawing(Dataset):
    """Samples that draw from every global generator."""

    def __len__(self) -> int:
        return len(Y)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        noise = torch.randn(5) + np.random.rand() + random.random()
        return X[i] + 0.1 * noise, Y[i]


class Stopped(Exception):
    """What ends a run in the middle of an epoch."""


class Run:
    """A short run on data, which an error may end after some steps."""

    def __init__(self, data: Iterable[Any], stop: int | None = None) -> None:
        net = nt.Sequential(nt.Linear(4), nt.BatchNorm1d(), nt.Tanh(), nt.Linear(3))
        self.model = nt.compile(net, (5,), nt.CrossEntropyLoss(), seed=1, device="cpu")
        self.optimizer = nt.TorchOptimizer(
            self.model, torch.optim.Adam, lr=1e-2,
            schedule=lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [2, 5, 7]),
        )  # fmt: skip
        self.data, self.stop = data, stop
        self.step, self.optimizer.step = self.optimizer.step, self._step

    def _step(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        if self.stop == 0:
            raise Stopped
        self.stop = None if self.stop is None else self.stop - 1
        return self.step(x, y)

    def __call__(self, folder: Path, **options: Any) -> dict[str, Any]:
        options = {"checkpoint": folder, "checkpoint_every": 1, "resume": "auto", **options}
        history = fit(self.model, self.optimizer, self.data, epochs=3, progress=False, **options)
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "steps": [step["loss"] for step in history.steps],
            "epochs": [(e.number, e.loss, e.steps) for e in history.epochs],
        }


LOADERS: dict[str, Callable[[], Iterable[Any]]] = {
    "list": lambda: [(X[:8], Y[:8]), (X[8:16], Y[8:16]), (X[16:], Y[16:])],
    "loader": lambda: DataLoader(Drawing(), 8, shuffle=True),
    "own generator": lambda: DataLoader(
        Drawing(), 8, shuffle=True, generator=torch.Generator().manual_seed(5)
    ),
    "sampler": lambda: DataLoader(
        Drawing(), 8, sampler=WeightedRandomSampler([1.0] * 22, 22, generator=torch.Generator())
    ),
    "batches": lambda: nt.Batches(X, Y, 8, seed=3),
}


def globals_seeded() -> None:
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)


@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.parametrize("steps", [1, 4, 5, 6])
def test_data_go_on_in_the_middle_of_an_epoch(kind: str, steps: int, tmp_path: Path) -> None:
    globals_seeded()
    whole = Run(LOADERS[kind]())(tmp_path / "whole")
    globals_seeded()
    with pytest.raises(Stopped):
        Run(LOADERS[kind](), stop=steps)(tmp_path / "parts")
    torch.manual_seed(99)  # nothing depends on what this process has drawn
    assert not differing(whole, Run(LOADERS[kind]())(tmp_path / "parts"))


def test_a_loader_with_workers_goes_on_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    def loader() -> DataLoader:
        return DataLoader(Drawing(), 8, shuffle=True, num_workers=1)

    globals_seeded()
    whole = Run(loader())(tmp_path / "whole")
    globals_seeded()
    with pytest.raises(Stopped):
        Run(loader(), stop=4)(tmp_path / "parts")
    assert not differing(whole, Run(loader())(tmp_path / "parts"))


class Stream(IterableDataset):
    def __iter__(self):
        return zip(X, Y, strict=True)


def test_what_cannot_be_restored_is_said_once(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Run(DataLoader(Stream(), 8))(tmp_path)
    told = [str(warning.message) for warning in caught]
    assert len(told) == 1
    assert "an IterableDataset keeps to itself is not restored" in told[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Run(DataLoader(Stream(), 8))(tmp_path / "epochs", checkpoint_every=None)


def test_other_data_than_before_are_told(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        Run(LOADERS["list"](), stop=2)(tmp_path)
    with pytest.warns(UserWarning, match="batch 2 is not what it was before"):
        Run([(x + 1, y) for x, y in LOADERS["list"]()])(tmp_path)


def test_fewer_data_than_before_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        Run(LOADERS["list"](), stop=2)(tmp_path)
    with pytest.raises(NewtritonError, match="2 batches of an epoch have been stepped on"):
        Run(LOADERS["list"]()[:1])(tmp_path)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, None), (signal.SIGTERM, 143)])
def test_a_signal_finishes_the_step_and_saves(tmp_path: Path, number, status) -> None:
    whole = Run(LOADERS["batches"]())(tmp_path / "whole")
    run, steps = Run(LOADERS["batches"]()), 0
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    def signalled(x: torch.Tensor, y: torch.Tensor) -> Any:
        nonlocal steps
        steps += 1
        if steps == 5:
            os.kill(os.getpid(), number)
        return run.step(x, y)

    run.optimizer.step = signalled
    options = {"checkpoint_every": None}
    if status is None:
        assert len(run(tmp_path / "parts", **options)["steps"]) == 5
    else:
        with pytest.raises(SystemExit) as end:
            run(tmp_path / "parts", **options)
        assert end.value.code == status
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert not differing(whole, Run(LOADERS["batches"]())(tmp_path / "parts"))


def test_a_second_signal_acts_at_once(tmp_path: Path) -> None:
    run = Run(LOADERS["batches"]())

    def signalled(x: torch.Tensor, y: torch.Tensor) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        return run.step(x, y)

    run.optimizer.step = signalled
    assert not run(tmp_path)["steps"]
    assert not (tmp_path / "last").exists()


def test_a_run_is_begun_or_resumed_as_it_is_asked(tmp_path: Path) -> None:
    data = LOADERS["batches"]
    with pytest.raises(NewtritonError, match="no run to resume"):
        Run(data())(tmp_path, resume="last")
    whole = Run(data())(tmp_path, resume="never")
    assert not differing(whole, Run(data())(tmp_path, resume="last"))
    with pytest.raises(NewtritonError, match="holds a run already"):
        Run(data())(tmp_path, resume="never")
    with pytest.raises(NewtritonError, match=r"resume is 'yes': one of 'never', .*checkpoint="):
        Run(data())(tmp_path, resume="yes")
    assert not differing(whole, Run(data())(tmp_path, resume="previous"))
    (tmp_path / "last" / "state.json").write_text("{}")
    with pytest.raises(NewtritonError, match="resume 'previous' or 'best'"):
        Run(data())(tmp_path)
    assert not differing(whole, Run(data())(tmp_path, resume="previous"))
    assert not differing(whole, Run(data())(tmp_path))


def test_what_a_callback_has_ended_stays_ended_while_there_are_callbacks(tmp_path: Path) -> None:
    data = LOADERS["batches"]
    first = Run(data())(tmp_path, callbacks=[lambda history: True])
    assert len(first["epochs"]) == 1

    def fails(history: nt.History) -> bool:
        raise AssertionError("another epoch was made")

    assert not differing(first, Run(data())(tmp_path, callbacks=[fails]))
    assert not differing(first, Run(data())(tmp_path, callbacks=[fails]))
    assert len(Run(data())(tmp_path)["epochs"]) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"checkpoint": None}, "are of a checkpoint: give its folder"),
        ({"checkpoint": 3}, "checkpoint is 3"),
        ({"keep": 0}, "keep is 0"),
        ({"history": nt.History()}, "leave history out"),
        ({"checkpoint_every": 0}, "checkpoint_every is 0"),
        ({"checkpoint_every": "soon"}, "checkpoint_every is 'soon': give a number of steps"),
        ({"checkpoint_every": "0m"}, r"checkpoint_every is 0\.0"),
        ({"checkpoint_every": ""}, "checkpoint_every is ''"),
        ({"checkpoint_every": "-1"}, "checkpoint_every is '-1'"),
        ({"checkpoint_every": 1.5}, r"checkpoint_every is 1\.5"),
    ],
)
def test_unusable_options_begin_no_run(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(NewtritonError, match=message):
        Run(LOADERS["batches"]())(tmp_path, **options)
    assert not [*tmp_path.iterdir()]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NewtritonError, match="file/run cannot be written"):
        Run(LOADERS["batches"]())(tmp_path / "file" / "run")


def test_what_has_no_state_is_refused(tmp_path: Path) -> None:
    run = Run(LOADERS["batches"]())
    run.optimizer = type("Plain", (), {"step": run.step})()
    with pytest.raises(NewtritonError, match="a Plain has no state_dict"):
        run(tmp_path)


def test_a_state_that_cannot_be_saved_is_refused_before_the_first_step(tmp_path: Path) -> None:
    run = Run(LOADERS["batches"]())
    run.optimizer.state_dict = lambda: {"made": object()}
    with pytest.raises(NewtritonError, match=r"the state\.0\.made is a object, which"):
        run(tmp_path)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("given", "expected"),
    [(None, Interval()), (3, Interval(3)), ("20", Interval(20)), (np.int64(2), Interval(2)),
     ("30s", Interval(seconds=30.0)), ("1.5m", Interval(seconds=90.0)),
     ("2h", Interval(seconds=7200.0))],
)  # fmt: skip
def test_intervals(given: object, expected: Interval) -> None:
    assert Interval.of(given) == expected


def test_time_is_an_interval_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    monkeypatch.setattr(Saving, "save", lambda self, history, within=None: saved.append(
        len(history.steps) if within else -1
    ))  # fmt: skip
    Run(LOADERS["batches"]())(tmp_path, checkpoint_every="0.000001s")
    assert saved == [1, 2, -1, 4, 5, -1, 7, 8, -1]
