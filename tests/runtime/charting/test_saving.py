"""Pictures are files of the format that is asked for, or one error."""

from __future__ import annotations

from pathlib import Path

import pytest

import newtriton as nt
from newtriton.runtime.charting.saving import charts, save


def test_a_picture_is_a_file_in_a_folder_that_is_made(tmp_path: Path) -> None:
    figure, axes = charts(2, 3)
    assert axes.shape == (2, 3)
    save(figure, tmp_path / "deep" / "er" / "a.svg")
    assert (tmp_path / "deep" / "er" / "a.svg").read_bytes().startswith(b"<?xml")


def test_what_cannot_be_saved_is_one_error(tmp_path: Path) -> None:
    figure, _ = charts(1, 1)
    with pytest.raises(nt.NewtritonError, match="cannot be drawn"):
        save(figure, tmp_path / "a.docx")
    (tmp_path / "file").touch()
    with pytest.raises(nt.NewtritonError, match="cannot be written"):
        save(figure, tmp_path / "file" / "a.png")
