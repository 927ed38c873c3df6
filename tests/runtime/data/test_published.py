"""Every published set knows its files under their published names."""

from __future__ import annotations

from pathlib import Path

import pytest

import newtriton as nt
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


@pytest.mark.parametrize(
    ("name", "counts", "shape"),
    [
        ("mnist", (60000, 10000), (1, 28, 28)),
        ("fashion-mnist", (60000, 10000), (1, 28, 28)),
        ("cifar10", (50000, 10000), (3, 32, 32)),
        ("cifar100", (50000, 10000), (3, 32, 32)),
        ("svhn", (73257, 26032), (3, 32, 32)),
        ("smallnorb", (24300, 24300), (2, 96, 96)),
        ("tiny-imagenet", (100000, 10000), (3, 64, 64)),
    ],
)
def test_a_real_set_that_is_at_hand_is_whole(
    name: str, counts: tuple[int, int], shape: tuple[int, ...]
) -> None:
    if not nt.available(name):
        pytest.skip("no files of it in NEWTRITON_DATA")
    for (x, y), count in zip(nt.load(name), counts, strict=True):
        assert (len(y), tuple(x.shape)) == (count, (count, *shape))
        assert int(y.bincount().min()) > 0
        some, _ = next(iter(nt.Batches(x, y, 500)))
        assert (float(some.min()), float(some.max())) == (0.0, 1.0)
