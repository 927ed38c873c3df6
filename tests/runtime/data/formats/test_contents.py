"""Bytes are the file's, unzipped where it is zipped; what is wrong has an offset."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import pytest

from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.data.formats import contents as module
from newtriton.runtime.data.formats.contents import Contents

TEXT = np.random.default_rng(0).integers(0, 64, 300_000, np.uint8).tobytes()


@pytest.mark.parametrize(
    "written",
    [TEXT, gzip.compress(TEXT), gzip.compress(TEXT[:5000]) + gzip.compress(TEXT[5000:])],
    ids=["plain", "gzip", "two-members"],
)
def test_the_contents_are_those_that_were_written(written: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file.gz"
    path.write_bytes(written)
    assert Contents.of(path).data.tobytes() == TEXT


def test_data_that_zlib_wrote_are_unzipped_where_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(zlib.compress(TEXT))
    assert Contents.of(path, zipped=True).data.tobytes() == TEXT


@pytest.mark.parametrize("place", [3, 1000, 100_000, -8, -1])
def test_a_byte_that_is_changed_is_found_where_it_hurts(place: int, tmp_path: Path) -> None:
    data = bytearray(gzip.compress(TEXT))
    data[place] ^= 0xFF
    path = tmp_path / "file.gz"
    path.write_bytes(data)
    with pytest.raises(NewtritonError, match=r"file\.gz, byte \d+: ") as error:
        Contents.of(path)
    offset = int(str(error.value).split(", byte ")[1].split(":")[0])
    assert place % len(data) <= offset <= len(data) or place == 3


def test_zipped_data_that_end_too_early_or_too_late(tmp_path: Path) -> None:
    data = gzip.compress(TEXT)
    path = tmp_path / "file.gz"
    path.write_bytes(data[:-3])
    with pytest.raises(NewtritonError, match=f"byte {len(data) - 3}: the zipped data end too"):
        Contents.of(path)
    path.write_bytes(data + b"more")
    with pytest.raises(NewtritonError, match=f"byte {len(data)}: 4 bytes follow"):
        Contents.of(path)


def test_a_small_file_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST", 100_000)
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(bytes(10_000_000)))
    with pytest.raises(NewtritonError, match="more than 100000 bytes when unzipped"):
        Contents.of(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(NewtritonError, match="nothing cannot be read: No such file"):
        Contents.of(tmp_path / "nothing")
    with pytest.raises(NewtritonError, match="cannot be read: Is a directory"):
        Contents.of(tmp_path)


def test_arrays_take_all_that_is_left(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(14)))
    contents = Contents.of(path)
    assert contents.integers(0, 2, ">u2") == [1, 0x0203]
    assert contents.array(2, (2, 3), ">u2")[1, 2] == 0x0C0D
    with pytest.raises(NewtritonError, match="byte 14: the file ends in its header of 16 bytes"):
        contents.integers(0, 4, "<u4")
    with pytest.raises(NewtritonError, match="byte 14: the file ends where 16 bytes are"):
        contents.array(2, (7,), "<u2")
    with pytest.raises(NewtritonError, match="byte 12: 2 bytes follow the last value"):
        contents.array(2, (5,), "<u2")
    with pytest.raises(NewtritonError, match="the file ends where"):  # and nothing is allocated
        contents.array(2, (2**32 - 1,) * 3)


def test_zipped_parts_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEMBERS", 3)
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(b"a") * 4)
    with pytest.raises(NewtritonError, match="more than 3 zipped parts follow each other"):
        Contents.of(path)
    path.write_bytes(gzip.compress(b"a") * 2)
    assert Contents.of(path).data.tobytes() == b"aa"
