"""Runs in which something fails: errors come through, and what goes on is the same run."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import newtriton as nt
from newtriton.runtime.training.loop import fit

from ...sources import ROOT
from .failures import trial
from .kills import differing


@pytest.mark.parametrize("seed", range(6))
def test_an_error_of_the_users_own_comes_through_and_the_run_can_go_on(seed: int, tmp_path: Path):
    trial(seed, tmp_path)


def made(seed: int = 0) -> tuple[nt.Model, nt.KFAC]:
    net = nt.Sequential(nt.Linear(4), nt.Tanh(), nt.Linear(3))
    model = nt.compile(net, (5,), nt.CrossEntropyLoss(), seed=seed, device="cpu")
    return model, nt.KFAC(model)


class Mortal(Dataset):
    """Samples, at one of which the worker process that reads them is killed."""

    def __len__(self) -> int:
        return 24

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        if i == 13:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.full((5,), i / 24), torch.tensor(i % 3)


def test_a_worker_that_is_killed_ends_the_run_between_two_steps() -> None:
    """PyTorch raises its error wherever the main process happens to be: not in that of pytest."""
    code = f"from {__name__} import check_a_run_whose_worker_is_killed as check; check()"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr


def check_a_run_whose_worker_is_killed() -> None:
    model, optimizer = made()
    history = nt.History()
    with pytest.raises(RuntimeError, match="worker"):
        fit(
            model, optimizer, DataLoader(Mortal(), batch_size=4, num_workers=1),
            epochs=1, progress=False, history=history,
        )  # fmt: skip
    assert history.count == optimizer.steps
    others, same = made()
    for i in range(history.count):
        at = range(4 * i, 4 * i + 4)
        x = torch.tensor([[n / 24] * 5 for n in at])
        same.step(x, torch.tensor([n % 3 for n in at]))
    assert not differing(optimizer.state_dict(), same.state_dict())
    assert torch.equal(model.params, others.params)


class Ending:
    """Data that stop before the number of batches that they say they have."""

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield torch.eye(3, 5), torch.arange(3)
        yield torch.eye(3, 5), torch.arange(3)


def test_data_that_end_early_are_told():
    model, optimizer = made()
    with pytest.warns(UserWarning, match="gave 2 of its 3 batches in epoch 1"):
        fit(model, optimizer, Ending(), epochs=1, progress=False)


def test_the_error_after_ten_refusals_comes_through_and_its_records_are_kept():
    model, optimizer = made()
    bad = [(torch.full((3, 5), 1e30), torch.arange(3))] * 20
    history = nt.History()
    with pytest.raises(nt.NewtritonError, match="10 steps in a row"):
        fit(model, optimizer, bad, epochs=1, progress=False, history=history)
    assert [step["accepted"] for step in history.steps] == [False] * 9
    assert all("not finite" in step["status"] for step in history.steps)
