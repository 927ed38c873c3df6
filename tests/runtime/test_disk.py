"""Plain files of a bounded size are read, and JSON that says things once; all else is one error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.disk import opened, parsed, read, read_json

from ..damage import INSTEAD, bounded


def test_bytes_come_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert read(tmp_path / "file") == read(tmp_path / "file", 3) == b"abc"
    with pytest.raises(NewtritonError, match="it has 3 bytes, where 2 are the most"):
        read(tmp_path / "file", 2)


@pytest.mark.parametrize("instead", INSTEAD)
def test_nothing_else_is_read(instead, tmp_path: Path) -> None:
    path = tmp_path / "file"
    instead(path)
    with bounded(instead.__name__), pytest.raises(NewtritonError, match=f"{path} cannot be read"):
        read(path)


def test_names_that_no_file_has_are_told(tmp_path: Path) -> None:
    for name in ("a\x00b", "a" * 300):
        with pytest.raises(NewtritonError, match="cannot be read"):
            read(tmp_path / name)


def test_a_file_that_may_not_be_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "file").write_bytes(b"abc")
    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(NewtritonError, match="file cannot be read: Permission denied"):
        read(tmp_path / "file")


def test_what_a_pipe_has_replaced_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    plain = os.stat(tmp_path / "file")
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(os, "stat", lambda *_, **__: plain)
    with bounded("a pipe"), opened(tmp_path / "pipe") as file:
        assert file.read() == b""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "Expecting value"),
        (b'{"a": 1', "Expecting"),
        (b"\xff", "decode"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"a": {"b": 1, "c": 2, "b": 1}}', "'b' is there twice"),
        (b"9" * 5000, "digits"),
    ],
)
def test_what_is_no_json_is_told(text: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        parsed(text)
    (tmp_path / "file").write_bytes(text)
    with pytest.raises(NewtritonError, match=f"file is damaged: .*{message}"):
        read_json(tmp_path / "file")


def test_what_is_there_twice_is_found_at_once() -> None:
    names = [f'"{i}": 0' for i in range(200_000)]
    with pytest.raises(ValueError, match="'0' is there twice"), bounded("200,000 names"):
        parsed("{" + ", ".join([*names, '"0": 1']) + "}")
