"""Runs that are killed at calls of the file layer end, resumed, where an unbroken one does."""

from pathlib import Path

import pytest
import torch

from .kills import Dying, Run, differing, killed, trial, unbroken

POINTS = 30


@pytest.mark.parametrize("point", range(POINTS))
def test_a_killed_run_is_resumed_bit_for_bit(
    point: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole, calls = unbroken()
    at = 1 + point * (calls - 1) // (POINTS - 1)
    killed(tmp_path / "run", monkeypatch, Dying(at, half=point % 2 == 1, lost=point % 3 == 2))
    assert not differing(whole, Run(tmp_path / "run")())


def test_a_run_that_is_killed_again_and_again_gets_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for at in (40, 50, 60):
        killed(tmp_path / "run", monkeypatch, Dying(at, half=True))
    assert not differing(unbroken()[0], Run(tmp_path / "run")())


def test_a_process_that_dies_is_resumed_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)  # others keep theirs
    for seed in range(2):
        (tmp_path / str(seed)).mkdir()
        assert trial(seed, tmp_path / str(seed)).startswith("resumed after")
