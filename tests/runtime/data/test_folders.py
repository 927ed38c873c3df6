"""Files are found under their names, in the folders where they usually are."""

from __future__ import annotations

from pathlib import Path

import pytest

from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.data.folders import Files, root_of

FILES = Files((("a.gz", "a"), ("b",)), ("inner", "other"), "somewhere", (("c", "that is old"),))


def test_a_folder_of_its_own_comes_first(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "other"):
        folder.mkdir(exist_ok=True)
        (folder / "a").touch()
        (folder / "b").touch()
    assert FILES.at(tmp_path) == [tmp_path / "other/a", tmp_path / "other/b"]
    (tmp_path / "other/b").unlink()
    assert FILES.need("it", tmp_path) == [tmp_path / "a", tmp_path / "b"]


def test_what_is_expected_and_what_is_there_is_told(tmp_path: Path) -> None:
    (tmp_path / "b").touch()
    assert FILES.at(tmp_path) is None
    with pytest.raises(NewtritonError) as error:
        FILES.need("it", tmp_path)
    assert str(error.value) == (
        f"{tmp_path} has not all files of it: it expects a.gz, b in that folder or in inner or "
        f"other there; they come from somewhere; {tmp_path} has all but a.gz"
    )
    (tmp_path / "c").touch()
    with pytest.raises(NewtritonError, match="c is there: that is old"):
        FILES.need("it", tmp_path)
    with pytest.raises(NewtritonError, match="nowhere is no folder with it"):
        FILES.need("it", tmp_path / "nowhere")


def test_the_folder_is_given_or_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEWTRITON_DATA", "/data")
    assert root_of(None) == Path("/data")
    assert root_of("here") == Path("here")
    assert root_of("~") == Path.home()
    monkeypatch.setenv("NEWTRITON_DATA", "")
    assert root_of(None) is None
    with pytest.raises(NewtritonError, match="root is 3: give the path of a folder"):
        root_of(3)
