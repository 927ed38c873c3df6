"""Every published set knows its files under their published names."""

from __future__ import annotations

from pathlib import Path

import pytest

from newtriton.runtime.data.published import PUBLISHED

from .writers import write_idx


@pytest.mark.parametrize("name", PUBLISHED)
def test_files_are_plain_names(name: str) -> None:
    files = PUBLISHED[name].files
    assert all("/" not in spelled for names in files.names for spelled in names)
    assert all(not folder.startswith(("/", "..")) for folder in files.folders)


@pytest.mark.parametrize("zipped", [True, False])
def test_idx_files_may_have_a_dot_in_their_names(zipped: bool, tmp_path: Path) -> None:
    write_idx(tmp_path, zipped)
    for path in list(tmp_path.iterdir()):
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    paths = PUBLISHED["mnist"].files.need("mnist", tmp_path)
    assert [path.name.split(".")[0] for path in paths] == [
        "train-images", "train-labels", "t10k-images", "t10k-labels",
    ]  # fmt: skip
