"""Runs that are killed at calls of the file layer end, resumed, where an unbroken one does."""

from pathlib import Path

import pytest

from newtriton.runtime.training import files

from .kills import Dying, Run, differing, killed

POINTS = 30


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict:
    counting = Dying()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "os", counting)
        result = Run(tmp_path_factory.mktemp("whole") / "run")()
    return {"result": result, "calls": counting.calls}


@pytest.mark.parametrize("point", range(POINTS))
def test_a_killed_run_is_resumed_bit_for_bit(
    unbroken: dict, point: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    at = 1 + point * (unbroken["calls"] - 1) // (POINTS - 1)
    killed(tmp_path / "run", monkeypatch, Dying(at, half=point % 2 == 1, lost=point % 3 == 2))
    assert not differing(unbroken["result"], Run(tmp_path / "run")())


def test_a_run_that_is_killed_again_and_again_gets_there(
    unbroken: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for at in (40, 50, 60):
        killed(tmp_path / "run", monkeypatch, Dying(at, half=True))
    assert not differing(unbroken["result"], Run(tmp_path / "run")())
