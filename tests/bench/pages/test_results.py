"""Files of results by name, and where they come from."""

from __future__ import annotations

from pathlib import Path

import pytest

import newtriton as nt

from .made import results


def test_rows_are_found_by_their_fields(tmp_path: Path) -> None:
    found = results(tmp_path)
    assert found.names == ("made", "papers/other")
    assert [row["ms"] for row in found.rows("made", net="a")] == [6.0, 4.0]
    assert found.row("made", net="b")["ms"] == 1250.0
    with pytest.raises(nt.NewtritonError, match=r"made\.json has 2 rows with"):
        found.row("made", net="a")


def test_the_origin_names_device_versions_and_date(tmp_path: Path) -> None:
    found = results(tmp_path)
    assert found.origin() == ""
    found.rows("made")
    assert found.origin() == "`made.json`: A chip, 1 thread, PyTorch 2.13.0, 2026-11-26"
    found.rows("papers/other")
    assert found.origin().endswith("2026-11-26; `papers/other.json`")


def test_a_file_of_something_else_is_one_error(tmp_path: Path) -> None:
    found = results(tmp_path)
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(nt.NewtritonError, match="no object with rows"):
        found.file("list")
