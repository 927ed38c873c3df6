"""One process trains in a folder; a second is told which, and the kernel gives the lock back."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import newtriton as nt
from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.training.history import History
from newtriton.runtime.training.locking import locked
from newtriton.runtime.training.runs import RunFolder

from .damage import OPTIONS, parts
from .kills import differing


@contextmanager
def held(folder: Path) -> Iterator[int]:
    """Another process holds the lock meanwhile; its number."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        with locked(folder):
            os.write(writing, b"held")
            time.sleep(600)
        os._exit(1)
    assert os.read(reading, 4) == b"held"
    try:
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)
        os.close(writing)


def test_a_second_process_is_told_and_the_lock_ends_with_its_holder(tmp_path: Path) -> None:
    before = parts().state()
    with held(tmp_path) as holder:
        for resume in ("never", "auto"):
            with pytest.raises(NewtritonError, match=rf"trained in by process {holder} on \S+, si"):
                parts().train(tmp_path, 1, resume)
    assert not differing(before, parts().state())
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]
    assert parts().train(tmp_path, 1, "auto").epochs


def test_reading_takes_no_lock(tmp_path: Path) -> None:
    parts().train(tmp_path / "run", 1, "never")
    with held(tmp_path / "run"):
        History.load(tmp_path / "run" / "history.json").plot(tmp_path / "run" / "plot.png")
        nt.evaluate(parts().model, parts().data)
        with pytest.raises(NewtritonError, match="trained in by process"):
            parts().load(tmp_path / "run", "last")


def _refused_elsewhere(folder: Path) -> bool:
    """Whether another process does not get the lock."""
    child = os.fork()
    if not child:
        try:
            with locked(folder):
                os._exit(0)
        except NewtritonError:
            os._exit(3)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3


def test_the_same_process_has_it_once_and_gives_it_back(tmp_path: Path) -> None:
    told: list[str] = []

    def second() -> None:
        with pytest.raises(NewtritonError) as error, locked(tmp_path / ".." / tmp_path.name):
            pass
        told.append(str(error.value))

    with locked(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
        child = os.fork()
        if not child:  # a worker that keeps nothing
            os._exit(0)
        os.waitpid(child, 0)
        assert _refused_elsewhere(tmp_path)
    assert f"process {os.getpid()}, this one" in told[0]
    for error in (KeyError, FileNotFoundError):  # of what trains, and not of the lock
        with pytest.raises(error), locked(tmp_path):
            raise error
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_where_there_are_no_locks_it_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def without(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "lockf", without)
    with pytest.warns(UserWarning, match="files have no locks") as caught:
        assert parts().train(tmp_path, 2, "never").epochs
    assert len(caught) == 1


@pytest.mark.parametrize(
    "instead", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/full")]
)
def test_a_lock_that_is_no_file_is_told(tmp_path: Path, instead) -> None:
    instead(tmp_path / "lock")
    with pytest.raises(NewtritonError, match="cannot be written"), locked(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(NewtritonError, match="file/run cannot be written"):
        parts().train(tmp_path / "file" / "run", 1, "never")
    with pytest.raises(NewtritonError, match="holds no run to resume"):
        parts().train(tmp_path / "nowhere", 1, "last")
    assert not (tmp_path / "nowhere").exists()
    assert RunFolder(tmp_path / "new", OPTIONS).begin() == History()
