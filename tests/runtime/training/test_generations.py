"""Generations are whole or not there, damage is found, and the best and the last are kept."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.training import files
from newtriton.runtime.training.generations import CHECKSUMS, Generations

from .damage import reseal
from .kills import CHANGING, Dying, Full


def filled(path: Path, measures: list[float], keep: int = 2) -> Generations:
    generations = Generations(path, keep)
    for i, measure in enumerate(measures):
        generations.write({"weights.safetensors": b"%d" % i, "state": b"s" * i}, (), measure)
    return generations


def held(path: Path) -> list[str]:
    return sorted(folder.name for folder in (path / "generations").iterdir())


def test_the_last_and_the_best_are_kept(tmp_path: Path) -> None:
    generations = filled(tmp_path, [3.0, 1.0, float("inf"), 2.0, 1.0])
    assert held(tmp_path) == ["000002", "000004", "000005"]
    assert generations.read().parts == {"weights.safetensors": b"4", "state": b"ssss"}
    assert generations.read("best").name == "000002"
    assert generations.read("previous").name == "000004"
    assert (tmp_path / "weights.safetensors").read_bytes() == b"4"
    assert not (tmp_path / "history.json").exists()
    assert held(filled(tmp_path / "more", [4.0, 3.0, 2.0, 1.0], keep=3).path)[0] == "000002"


def test_a_file_is_shared_with_the_last_generation(tmp_path: Path) -> None:
    generations = filled(tmp_path, [1.0])
    generations.write({"state": b"within"}, ("weights.safetensors",), float("inf"))
    parts = generations.read().parts
    assert parts == {"state": b"within", "weights.safetensors": b"0"}
    assert (tmp_path / "weights.safetensors").read_bytes() == b"0"
    first = Generations(tmp_path / "new")
    first.write({"state": b"within"}, ("weights.safetensors",), float("inf"))
    assert first.read().parts == {"state": b"within"}


def test_a_folder_can_be_moved(tmp_path: Path) -> None:
    filled(tmp_path / "one", [1.0])
    (tmp_path / "one").rename(tmp_path / "two")
    assert Generations(tmp_path / "two").read().name == "000001"
    assert (tmp_path / "two" / "weights.safetensors").read_bytes() == b"0"


@pytest.mark.parametrize("name", ["last", "best", "weights.safetensors", "history.json"])
def test_what_is_no_link_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(NewtritonError, match=f"{name} is no link of a run"):
        _ = Generations(tmp_path).exist
    with pytest.raises(NewtritonError, match=f"{name} is no link of a run"):
        filled(tmp_path, [1.0])
    assert (tmp_path / name).read_text() == "mine"


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[data.find(b"es") + 1] ^= 1  # of the word files, where there is one
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["weights.safetensors", "state", CHECKSUMS])
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"[1, 2]"),
        _flip,
    ],
)
def test_damage_is_found_and_the_one_before_is_used_if_asked(tmp_path: Path, name, damage) -> None:
    generations = filled(tmp_path, [2.0, 1.0, 3.0])
    damage(tmp_path / "generations" / "000003" / name)
    with pytest.raises(NewtritonError, match=r"damaged run, of which 'last' .* resume 'previous'"):
        generations.read()
    name, parts, _ = generations.read("previous")
    assert (name, parts["state"]) == ("000002", b"s")
    generations.make_last(name)
    generations.write({"state": b"on"}, (), 5.0)
    assert held(tmp_path) == ["000002", "000004"], "what is damaged has gone"
    assert generations.read().parts["state"] == b"on"


def test_a_hostile_name_does_not_leave_the_folder(tmp_path: Path) -> None:
    generations = filled(tmp_path, [1.0])
    path = tmp_path / "generations" / "000001" / CHECKSUMS
    path.write_text(path.read_text().replace("state", "../../../etc/passwd"))
    reseal(path.parent)
    with pytest.raises(NewtritonError, match="is no name of a file"):
        generations.read()


@pytest.mark.parametrize("which", ["last", "previous", "best"])
def test_nothing_to_read_is_an_error(tmp_path: Path, which: str) -> None:
    with pytest.raises(NewtritonError, match=r"damaged|no undamaged"):
        Generations(tmp_path).read(which)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EIO, errno.EROFS])
def test_a_full_disk_leaves_the_last_one_intact(tmp_path: Path, monkeypatch, code: int) -> None:
    counting = Dying()
    generations = filled(tmp_path, [1.0, 2.0])
    with monkeypatch.context() as patch:
        patch.setattr(files, "os", counting)
        generations.write({"state": b"c"}, (), 3.0)
    before = 0
    for at in range(1, counting.calls + 1):
        with monkeypatch.context() as patch:
            patch.setattr(files, "os", Full(at, code))
            try:
                generations.write({"state": b"new"}, (), 3.0)
            except NewtritonError as error:
                assert os.strerror(code) in str(error)
                assert "intact" in str(error)
                before += 1
        assert generations.read().parts["state"] in (b"c", b"new")
    assert before > counting.calls - 3
    generations.write({"state": b"room"}, (), 3.0)
    assert generations.read().parts["state"] == b"room"
    assert len(held(tmp_path)) == 3


def test_all_changes_go_through_calls_that_can_be_killed() -> None:
    source = Path(files.__file__).read_text()
    changing = {name for name in CHANGING if f"os.{name}(" in source}
    assert changing == set(CHANGING)
    assert ".write_" not in source


class Linkless:
    """Stands in for the module `os` where the file system has no links."""

    def __init__(self, code: int | None) -> None:
        self.code = code

    def __getattr__(self, name: str) -> Any:
        return self._refuse if name in ("symlink", "link") else getattr(os, name)

    def _refuse(self, *_: object) -> None:
        raise OSError(self.code, "no links") if self.code else OSError("no links")


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, None])
def test_without_links_there_are_names_and_copies(tmp_path: Path, monkeypatch, code) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(files, "os", Linkless(code))
        generations = filled(tmp_path, [3.0, 1.0, 2.0])
        assert generations.exist
        assert not [path for path in tmp_path.rglob("*") if path.is_symlink()]
        assert (tmp_path / "last").read_text() == "generations/000003\n"
        assert (tmp_path / "weights.safetensors").read_bytes() == b"2"
        assert generations.read().name == "000003"
        assert generations.read("best").name == "000002"
        generations.make_last("000002")
        assert (tmp_path / "weights.safetensors").read_bytes() == b"1"
        generations.write({"state": b"within"}, ("weights.safetensors",), float("inf"))
        assert (tmp_path / "weights.safetensors").read_bytes() == b"1"
        assert held(tmp_path) == ["000002", "000004"]
    generations.write({"weights.safetensors": b"on"}, (), 5.0)  # copied to where there are links
    assert (tmp_path / "weights.safetensors").is_symlink()
    assert generations.read().parts["weights.safetensors"] == b"on"


def test_a_damaged_name_in_a_file_leads_to_the_generation_before(tmp_path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(files, "os", Linkless(errno.EPERM))
        generations = filled(tmp_path, [3.0, 1.0])
    for text in ("", "generations/../../000001\n", "x" * 10_000):
        (tmp_path / "last").write_text(text)
        with pytest.raises(NewtritonError, match=r"last names none.* resume 'previous'"):
            generations.read()
        assert generations.read("previous").name == "000002"


def test_weights_that_are_not_finite_are_never_the_best_and_finite_ones_are_kept(
    tmp_path: Path,
) -> None:
    generations = filled(tmp_path, [3.0])
    for _ in range(4):
        generations.write({"state": b"nan"}, (), 1.0, is_finite=False)
    assert held(tmp_path) == ["000001", "000004", "000005"]
    assert generations.read().is_finite is False
    assert generations.read("best").name == generations.read("previous").name == "000001"
    generations.write({"state": b"better"}, (), 2.0)
    assert held(tmp_path) == ["000005", "000006"]


def test_what_is_shared_is_not_shared_with_damage(tmp_path: Path) -> None:
    generations = filled(tmp_path, [1.0])
    generations.write({"state": b"within"}, ("weights.safetensors",), float("inf"))
    one, two = ((tmp_path / f"generations/00000{n}/weights.safetensors") for n in (1, 2))
    assert not one.samefile(two)
    one.write_bytes(b"damaged")
    assert generations.read().parts["weights.safetensors"] == b"0"
    two.write_bytes(b"damaged")
    generations.write({"state": b"on"}, ("weights.safetensors",), float("inf"))
    assert generations.read().parts == {"state": b"on"}
