"""Runs are read from their folders, those of earlier versions too; what is damaged is one error."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest

import newtriton as nt
from newtriton.runtime.reporting.reading import runs_of
from newtriton.runtime.training.generations import CHECKSUMS

from ..training.damage import Parts
from .records import history


@cache
def _trained() -> Path:
    folder = Path(mkdtemp()) / "mine"
    Parts().train(folder, 2, "never")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(_trained(), tmp_path / "mine", symlinks=True)


def test_a_folder_has_records_events_and_options(folder: Path) -> None:
    (run,) = runs_of(folder)
    assert run.name == "mine"
    assert run.history == nt.History.load(folder / "history.json")
    assert run.told["options"]["net"] == "mlp"
    assert run.spectrum is None
    (folder / "events.jsonl").unlink()
    (run,) = runs_of([str(folder)])
    assert run.told == {"options": {"net": "mlp", "lr": 0.1, "damping": None}}


def test_weights_are_not_read(folder: Path) -> None:
    for path in (folder / "generations").rglob("*.safetensors"):
        path.unlink()
    assert len(runs_of(folder)[0].history.steps) == 4


def test_folders_of_earlier_versions_are_read(folder: Path, tmp_path: Path) -> None:
    last = folder / "generations" / (folder / "last").readlink().name
    described = json.loads((last / CHECKSUMS).read_text())
    older = {name: described[name] for name in ("files", "measure")}
    (last / CHECKSUMS).write_text(json.dumps(older))
    (folder / "events.jsonl").unlink()
    assert len(runs_of(folder)[0].history.steps) == 4
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "state.pt").write_bytes(b"pickled")
    history().save(plain / "history.json")
    assert runs_of(plain)[0].history == history()


def test_runs_are_called_by_their_folders_and_never_the_same(folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(folder, tmp_path / "other" / "mine", symlinks=True)
    file = tmp_path / "records.json"
    history().save(file)

    def names(runs: object) -> list[str]:
        return [run.name for run in runs_of(runs)]  # type: ignore[arg-type]

    assert names([folder, other]) == [str(folder), str(other)]
    assert names([folder, folder]) == [f"{folder} (1)", f"{folder} (2)"]
    assert names([folder / "history.json", file]) == ["mine", "records.json"]
    assert names([folder, history(), history()]) == ["mine", "run 2", "run 3"]
    assert names(history()) == ["run"]
    assert names({"a": folder, "b": history()}) == ["a", "b"]


def _damage(name: str, text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        path = folder / name
        target = path.resolve() if path.is_symlink() else path
        target.write_text(text)

    return write


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_damage("history.json", "{}"), "damaged run.*history.json is not what was written"),
        (_damage("last/checksums.json", "{"), "damaged run"),
        (_damage("events.jsonl", "mine\n"), r"events\.jsonl is damaged at line 1"),
        (_damage("options.json", "["), r"options\.json is damaged"),
        (_damage("options.json", "[]"), "the options in .* give a dictionary"),
        (_damage("spectrum.json", "{}"), r"spectrum\.json is no spectrum that Density\.save"),
        (
            lambda folder: shutil.rmtree(folder / "generations"),
            "damaged run, of which 'last' cannot be read",
        ),
    ],
)
def test_what_is_damaged_is_one_error_with_its_name(
    folder: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(folder)
    with pytest.raises(nt.NewtritonError, match=message) as told:
        runs_of(folder)
    assert str(folder) in str(told.value)
