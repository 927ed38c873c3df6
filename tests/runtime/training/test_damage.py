"""Damaged folders of runs: refused with nothing changed, and the generation before is intact."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.training.history import History
from newtriton.runtime.training.runs import PARTS, RunFolder

from ...damage import INSTEAD, Hostile, bounded
from .damage import OPTIONS, good, parts, reseal, trial, whole
from .kills import differing

TRIALS = 60


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(good(), tmp_path / "run", symlinks=True))


@pytest.mark.parametrize("group", range(6))
def test_a_damaged_run_is_refused_or_restored(group: int, tmp_path: Path) -> None:
    for seed in range(group, TRIALS, 6):
        (tmp_path / str(seed)).mkdir()
        trial(seed, tmp_path / str(seed))


@pytest.mark.parametrize("name", PARTS)
def test_nothing_is_unpickled(name: str, run: Path, tmp_path: Path) -> None:
    hostile = pickle.dumps({"state": Hostile(tmp_path / "executed")})
    (run / "last" / name).write_bytes(hostile)
    reseal(run / "last")
    with pytest.raises(NewtritonError, match="cannot be gone on with") as error:
        parts().load(run, "last")
    assert not (tmp_path / "executed").exists(), error


def _arrays(state: str) -> str:
    return state.replace('"uint32"', '"(1000000000,)uint32"')


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("state.json", _arrays),
        ("state.json", lambda text: text.replace('"uint32"', '"O"')),
        ("state.json", lambda text: text.replace('"uint32"', '"U1000000000"')),
        ("state.json", lambda text: text.replace('["uint32", [624]', '["uint32", [-1, 99999999]')),
        ("state.json", lambda text: text.replace('"within": null', '"within": {"batches": -1}')),
        ("state.json", lambda text: "[" * 100_000),
        ("state.json", lambda text: text.replace('{"$tensor"', '{"$items"')),
        ("state.json", lambda text: text.replace('"format": 1', '"format": 2')),
        ("state.json", lambda text: text.replace('"format": 1', '"format": 1, "format": 1')),
        ("history.json", lambda text: text.replace('"steps": [', '"steps": [7, ')),
        ("history.json", lambda text: text.replace('"loss": ', '"loss": "large", "x": ')),
        ("history.json", lambda text: text.replace('"interrupted": false', '"interrupted": 0')),
    ],
)
def test_what_checksums_do_not_tell_is_told_by_what_it_is(name: str, change, run: Path) -> None:
    path = run / "last" / name
    changed = change(path.read_text())
    assert changed != path.read_text()
    path.write_text(changed)
    reseal(run / "last")
    before = parts().state()
    with bounded(name), pytest.raises(NewtritonError, match="cannot be gone on with"):
        parts().load(run, "last")
    assert not differing(before, parts().state())


@pytest.mark.parametrize("instead", INSTEAD)
@pytest.mark.parametrize("name", ["options.json", "last/state.json", "last/checksums.json"])
def test_what_is_no_file_is_told_and_not_waited_for(name: str, instead, run: Path) -> None:
    (run / name).unlink()
    instead(run / name)
    if (name, instead.__name__) == ("options.json", "nothing"):
        return
    with bounded(instead.__name__), pytest.raises(NewtritonError, match=str(run)):
        parts().load(run, "last")


def test_a_lost_link_leads_to_the_newest_generation(run: Path) -> None:
    (run / "last").unlink()
    history = parts().load(run, "auto")
    assert not differing(whole("last"), (parts().state(), history.text()))
    assert (run / "last").readlink() == (good() / "last").readlink()
    (run / "last").unlink()
    with pytest.raises(NewtritonError, match="holds a run already"):
        RunFolder(run, OPTIONS).begin()


def test_generations_without_a_checksum_of_their_own_are_read(run: Path) -> None:
    for path in run.glob("generations/*/checksums.json"):
        described = json.loads(path.read_text())
        path.write_text(json.dumps({name: described[name] for name in ("files", "measure")}))
    history = parts().load(run, "last")
    assert not differing(whole("last"), (parts().state(), history.text()))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"epochs": [], "steps": 5}', '{"epochs": [1]}'])
def test_a_history_that_is_none_is_refused_by_name(text: str, tmp_path: Path) -> None:
    (tmp_path / "history.json").write_text(text)
    with pytest.raises(NewtritonError, match=r"history\.json is not a history"):
        History.load(tmp_path / "history.json")


def _as_nobody(call: Callable[[], object]) -> str:
    """What a user who has no rights is told in an error, in a process of its own."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        said = "nothing"
        with suppress(Exception):
            if os.getuid() == 0:
                os.setuid(65534)
            try:
                call()
            except NewtritonError as error:
                said = str(error)
        os.write(writing, said.encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading) as file:
        return file.read()


@pytest.mark.parametrize("which", ["last", "auto", "never", "previous"])
def test_a_closed_folder_is_told(which: str) -> None:
    with TemporaryDirectory() as outer:
        run = Path(shutil.copytree(good(), Path(outer) / "run", symlinks=True))
        Path(outer).chmod(0o755)
        run.chmod(0o000)
        said = _as_nobody(lambda: parts().train(run, 3, which))
        run.chmod(0o700)
    assert said.startswith(f"{run} cannot be ") and "Permission denied" in said


@pytest.mark.parametrize(
    ("closed", "message"),
    [
        ("options.json", "options.json cannot be read: Permission denied"),
        ("last/state.json", "state.json cannot be read: Permission denied"),
        ("generations", "damaged run, of which 'last' cannot be read"),
        (".", "run cannot be written (Permission denied)"),
    ],
)
def test_what_may_not_be_read_or_written_is_told(closed: str, message: str) -> None:
    with TemporaryDirectory() as outer:
        run = Path(shutil.copytree(good(), Path(outer) / "run", symlinks=True))
        Path(outer).chmod(0o755)
        for path in (run, *run.rglob("*")):
            path.chmod(0o777 if path.is_dir() else 0o666)
        (run / closed).chmod(0o555 if closed == "." else 0o000)
        (run / "lock").unlink()
        said = _as_nobody(lambda: parts().load(run, "last"))
        (run / closed).chmod(0o700)
    assert message in said
