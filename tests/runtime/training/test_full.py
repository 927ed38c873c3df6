"""A full disk or a folder that cannot be written is one error; with room, the run goes on."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.training import files
from newtriton.runtime.training.epoch import Epoch
from newtriton.runtime.training.history import History
from newtriton.runtime.training.plots import plot_histories

from .damage import parts
from .full import trial
from .kills import Dying, Full


@pytest.mark.parametrize("group", range(4))
def test_a_disk_that_is_full_is_told_and_the_run_resumed(group: int, tmp_path: Path) -> None:
    for seed in range(group, 8, 4):
        (tmp_path / str(seed)).mkdir()
        assert trial(seed, tmp_path / str(seed))


def test_a_history_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = History([Epoch(1, 2, 0.5, 1.0)])
    history.save(tmp_path / "history.json")
    counting = Dying()
    with monkeypatch.context() as patch:
        patch.setattr(files, "os", counting)
        history.save(tmp_path / "history.json")
    for at in range(1, counting.calls + 1):
        with monkeypatch.context() as patch:
            patch.setattr(files, "os", Full(at, errno.ENOSPC))
            with pytest.raises(NewtritonError, match=r"history\.json cannot be written"):
                History().save(tmp_path / "history.json")
        assert History.load(tmp_path / "history.json").epochs in ([], history.epochs)


def test_a_picture_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "plot.png").mkdir()
    with pytest.raises(NewtritonError, match=r"plot\.png cannot be written"):
        plot_histories({"": History([Epoch(1, 2, 0.5, 1.0)])}, tmp_path / "plot.png")


def test_a_folder_that_cannot_be_written_changes_nothing_on_resuming(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = parts()
    loaded.train(tmp_path, 2, "never")
    loaded.load(tmp_path, "last")
    before = loaded.state()
    with monkeypatch.context() as patch:
        patch.setattr(files, "os", Full(4, errno.EROFS))  # after those that take the lock
        with pytest.raises(NewtritonError, match="cannot be written"):
            loaded.load(tmp_path, "previous")
    assert loaded.data.state_dict() == before["data"]
    assert (loaded.model.state_dict()["0.weight"] == before["model"]["0.weight"]).all()
