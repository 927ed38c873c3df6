"""Folders that nobody else can write to: made where they are missing, told from others."""

import os
from pathlib import Path

import pytest

from newtriton.runtime.caching import folders
from newtriton.runtime.caching.folders import fault_of, private, warn

WHAT = "letters", "LETTERS"
root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders away")


@pytest.fixture(autouse=True)
def _warned() -> None:
    warn.cache_clear()


def test_a_folder_is_made_for_the_user_alone(tmp_path: Path):
    found = private(tmp_path / "new" / "folder", *WHAT)
    assert found == tmp_path / "new" / "folder" and found.stat().st_mode & 0o777 == 0o700


def test_there_is_one_warning(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.warns(
        UserWarning, match=r"letters cannot be kept in .*file: .*set LETTERS"
    ) as found:
        assert [private(tmp_path / "file", *WHAT) for _ in range(3)] == [None] * 3
    assert len(found) == 1


@pytest.mark.parametrize("mode", [0o777, 0o722, 0o1777])
def test_others_can_write_there(tmp_path: Path, mode: int):
    tmp_path.chmod(mode)
    assert "others can write" in str(fault_of(tmp_path))


def test_others_can_write_above(tmp_path: Path):
    """They could put another folder in its place, unless the bit that forbids it is set."""
    inside = tmp_path / "inside"
    inside.mkdir(0o700)
    tmp_path.chmod(0o777)
    assert "others can write" in str(fault_of(inside))
    tmp_path.chmod(0o1777)
    assert fault_of(inside) is None


def test_a_group_of_the_users_own_is_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Many systems let it write to all new folders."""
    tmp_path.chmod(0o770)
    for own in (True, False):
        monkeypatch.setattr(folders, "_own_group", lambda group, own=own: own)
        assert (fault_of(tmp_path) is None) == own


@root
def test_another_users_folder_is_not_taken(tmp_path: Path):
    inside = tmp_path / "inside"
    inside.mkdir(0o700)
    os.chown(tmp_path, 1234, 1234)
    assert f"user 1234 owns {tmp_path}" == fault_of(inside)
    os.chown(tmp_path, folders.UNMAPPED, 1234)
    assert fault_of(inside) is None


def test_a_link_to_an_unsafe_place_is_not_followed(tmp_path: Path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    (tmp_path / "link").symlink_to(tmp_path / "shared")
    with pytest.warns(UserWarning, match="others can write"):
        assert private(tmp_path / "link", *WHAT) is None
