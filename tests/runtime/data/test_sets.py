"""Data sets come by name from small files in their published formats, whole or with one error."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import newtriton as nt
from newtriton.runtime.data.sets import NAMES

from .writers import WRITERS, Part

Write = Callable[[Path], list[Part]]
SETS = [pytest.param(name, *rest, id=name) for name, rest in WRITERS.items()]


def dense(x: torch.Tensor | nt.Lazy) -> torch.Tensor:
    return x.in_memory() if isinstance(x, nt.Lazy) else x


def test_every_set_that_is_read_from_files_is_written_here() -> None:
    assert {"digits", "curves", "faces", *WRITERS} == set(NAMES)


@pytest.mark.parametrize("inside", [True, False], ids=["in-its-folder", "flat"])
@pytest.mark.parametrize(("name", "folder", "write"), SETS)
def test_a_set_is_read_as_it_was_written(
    name: str, folder: str, write: Write, inside: bool, tmp_path: Path
) -> None:
    place = tmp_path / folder if inside else tmp_path
    place.mkdir(parents=True, exist_ok=True)
    assert not nt.available(name, tmp_path)
    written = write(place)
    assert nt.available(name, tmp_path)
    for (x, y), (images, labels) in zip(nt.load(name, tmp_path), written, strict=True):
        assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
        assert torch.equal(dense(x), images.float() / 255)
        assert torch.equal(y, labels)


@pytest.mark.parametrize("missing", [True, False], ids=["no-folder", "empty-folder"])
@pytest.mark.parametrize("name", [*WRITERS, "faces"])
def test_a_missing_folder_says_which_files_are_expected(
    name: str, missing: bool, tmp_path: Path
) -> None:
    expected = {
        "mnist": "train-images-idx3-ubyte.gz",
        "fashion-mnist": "t10k-labels-idx1-ubyte.gz",
        "cifar10": "data_batch_1.bin",
        "cifar100": "cifar-100-binary",
        "svhn": "train_32x32.mat",
        "smallnorb": "smallnorb-5x46789x9x18x6x2x96x96-training-dat.mat.gz",
        "tiny-imagenet": "wnids.txt",
        "imagenet-10": "train",
        "faces": "olivettifaces.mat",
    }
    root = tmp_path / "nowhere" if missing else tmp_path
    assert not nt.available(name, root)
    with pytest.raises(nt.NewtritonError) as error:
        nt.load(name, root)
    assert expected[name] in str(error.value)
    assert str(root) in str(error.value)


def test_one_file_that_is_missing_is_named(tmp_path: Path) -> None:
    WRITERS["cifar10"][1](tmp_path)
    (tmp_path / "data_batch_3.bin").unlink()
    with pytest.raises(nt.NewtritonError, match=r"has all but data_batch_3\.bin"):
        nt.load("cifar10", tmp_path)


def test_pickled_cifar_is_not_read_and_the_binary_version_named(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(nt.NewtritonError, match="pickled, which is not read; get the binary"):
        nt.load("cifar10", tmp_path)


@pytest.mark.parametrize("name", ["../mnist", "mnist/..", "MNIST", "", "/etc"])
def test_a_name_is_one_of_those_known(name: str, tmp_path: Path) -> None:
    with pytest.raises(nt.NewtritonError, match="one of 'digits', 'curves'"):
        nt.load(name, tmp_path)


def test_the_folder_may_be_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NEWTRITON_DATA", raising=False)
    with pytest.raises(nt.NewtritonError, match=r"pass root=.*NEWTRITON_DATA"):
        nt.load("cifar10")
    assert not nt.available("cifar10")
    WRITERS["cifar10"][1](tmp_path)
    monkeypatch.setenv("NEWTRITON_DATA", str(tmp_path))
    assert nt.load("cifar10")[0].x.shape == (15, 3, 32, 32)


def test_the_digits_are_those_of_digits() -> None:
    for loaded, known in zip(nt.load("digits"), nt.digits(), strict=True):
        assert torch.equal(loaded.x, known.x)
        assert torch.equal(loaded.y, known.y)
    train, _ = nt.load("digits", preprocessing="none")
    assert (float(train.x.min()), float(train.x.max())) == (0.0, 1.0)


def test_curves_are_their_own_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("newtriton.runtime.data.sets.CURVES", (40, 20))
    train, test = nt.load("curves")
    assert torch.equal(train.x, nt.curves(40).x)
    assert (train.y is train.x, test.x.shape) == (True, (20, 784))
    assert not torch.equal(train.x[:20], test.x)
    centred, _ = nt.load("curves", preprocessing="pixel-mean")
    assert torch.equal(centred.x, centred.y)


class Unreadable(UserDict):
    """A mapping whose values cannot be read."""

    def __getitem__(self, key: str) -> Any:
        raise RuntimeError("no values")


def test_datasets_are_loaded_too() -> None:
    x, y = torch.rand(9, 3, 4, 4), torch.arange(9)
    dataset = torch.utils.data.TensorDataset(x, y)
    for pair in ((dataset, dataset), {"train": dataset, "validation": dataset}):
        train, test = nt.load(pair, preprocessing="pixel-mean")
        assert torch.allclose(train.x[:], x - x.mean(0), atol=1e-6)
        assert torch.equal(train.x[:], test.x[:])
    assert torch.equal(nt.load((dataset, dataset))[0].x[:], x)
    with pytest.raises(nt.NewtritonError, match="a pair of datasets"):
        nt.load(dataset)
    with pytest.raises(nt.NewtritonError, match="the datasets are train: give 'train' and one of"):
        nt.load({"train": dataset})
    with pytest.raises(nt.NewtritonError, match="which cannot be read: no values"):
        nt.load(Unreadable(train=dataset, test=dataset))


DAMAGED = [
    ("mnist", "train-images-idx3-ubyte.gz"),
    ("fashion-mnist", "train-images-idx3-ubyte"),
    ("fashion-mnist", "t10k-labels-idx1-ubyte"),
    ("cifar10", "data_batch_2.bin"),
    ("cifar100", "test.bin"),
    ("svhn", "train_32x32.mat"),
    ("smallnorb", "smallnorb-5x46789x9x18x6x2x96x96-training-cat.mat"),
    ("tiny-imagenet", "train/n01/images/n01_1.JPEG"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {name: tmp_path_factory.mktemp(name) for name in WRITERS}
    for name, (_, write) in WRITERS.items():
        write(folders[name])
    return folders


def error_of(name: str, root: Path) -> str:
    """What is wrong with a data set, all of which is looked at."""
    with pytest.raises(nt.NewtritonError) as error:
        for x, _ in nt.load(name, root):
            dense(x)
    return str(error.value)


@pytest.mark.parametrize(("name", "file"), DAMAGED)
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_file_that_is_cut_is_one_error_with_file_and_offset(
    name: str, file: str, whole: dict[str, Path], share: float
) -> None:
    path = whole[name] / file
    content = path.read_bytes()
    cut = int(share * len(content))
    if name.startswith("cifar") and cut % (len(content) // 3 if name == "cifar10" else 3074) == 0:
        cut = max(cut - 1, 0)  # whole records are a whole file
    path.write_bytes(content[:cut])
    try:
        assert f"{path}, byte " in error_of(name, whole[name])
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize(("name", "file"), DAMAGED[:-1])
def test_a_file_with_more_behind_its_end_is_one_error_with_file_and_offset(
    name: str, file: str, whole: dict[str, Path]
) -> None:
    path = whole[name] / file
    content = path.read_bytes()
    path.write_bytes(content + b"garbage")
    try:
        said = error_of(name, whole[name])
    finally:
        path.write_bytes(content)
    assert f"{path}, byte " in said
    if name not in ("mnist", "svhn"):
        assert "7 bytes follow" in said


@pytest.mark.parametrize(("name", "file"), DAMAGED)
def test_another_file_is_one_error_with_file_and_offset(
    name: str, file: str, whole: dict[str, Path]
) -> None:
    path = whole[name] / file
    content = path.read_bytes()
    try:
        for other in (b"", b"GIF89a" + bytes(2000), np.full(9000, 255, np.uint8).tobytes()):
            path.write_bytes(other)
            assert f"{path}, byte " in error_of(name, whole[name])
    finally:
        path.write_bytes(content)
