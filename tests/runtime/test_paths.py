"""What no file can be called is refused, with the way out."""

from __future__ import annotations

from pathlib import Path

import pytest

import newtriton as nt
from newtriton.runtime.paths import path_of


@pytest.mark.parametrize("value", ["a/b", Path("a/b")])
def test_text_and_paths_are_paths(value: str | Path) -> None:
    assert path_of("root", value) == Path("a/b")


@pytest.mark.parametrize("value", [None, 3, "", "a\0b", "\ud800", b"a", ["a"], object()])
def test_what_is_none_is_refused(value: object) -> None:
    with pytest.raises(nt.NewtritonError, match=r"^root is .*: give the path of a folder$"):
        path_of("root", value)
    with pytest.raises(nt.NewtritonError, match=r"^path is .*: give the path of a file$"):
        path_of("path", value, "file")
