"""Files appear as a whole, and nothing but our own regular files is read."""

import os
import time
from pathlib import Path

import pytest

from newtriton.runtime.caching import entries
from newtriton.runtime.caching.entries import NEW, checksum, read, replace


def test_what_is_written_is_read(tmp_path: Path):
    for data in (b"one", b"", b"x" * 3_000_000):
        replace(tmp_path / "entry", data)
        assert read(tmp_path / "entry") == data
    assert (tmp_path / "entry").stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["entry"]


def test_links_pipes_folders_and_endless_files_are_not_read(tmp_path: Path):
    replace(tmp_path / "entry", b"data")
    (tmp_path / "link").symlink_to("entry")
    (tmp_path / "zero").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", entries.MOST + 1)
    names = "link", "zero", "pipe", "folder", "large", "nothing"
    assert [read(tmp_path / name) for name in names] == [None] * 6


def test_a_link_is_replaced_and_not_written_through(tmp_path: Path):
    (tmp_path / "target").write_text("precious")
    (tmp_path / "entry").symlink_to("target")
    replace(tmp_path / "entry", b"new")
    assert read(tmp_path / "entry") == b"new" and (tmp_path / "target").read_text() == "precious"


def test_what_the_dead_have_left_is_removed(tmp_path: Path):
    old, young = tmp_path / f".a{NEW}1", tmp_path / f".a{NEW}2"
    for path in (old, young):
        path.touch()
    os.utime(old, (time.time() - 2 * entries.DAY,) * 2)
    replace(tmp_path / "a", b"data")
    assert {p.name for p in tmp_path.iterdir()} == {"a", young.name}


def test_the_name_is_part_of_the_checksum():
    assert len({checksum("a", b"bc"), checksum("ab", b"c"), checksum("a", b"bd")}) == 3


def test_an_error_leaves_what_was_there(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="directory"):
        replace(tmp_path / "folder", b"data")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]
