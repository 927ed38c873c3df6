"""Damaged files of data sets, pickles that do harm, small files that would become large ones."""

from __future__ import annotations

import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

import newtriton as nt
from newtriton.runtime.data.faces import photographs
from newtriton.runtime.data.formats import matlab
from newtriton.runtime.data.formats.contents import Contents
from newtriton.runtime.data.formats.images import Images

from ...damage import INSTEAD, Hostile, bomb, bounded
from .damage import FORMATS, good, trial
from .writers import write_tiny

TRIALS = 12  # of each format


@pytest.mark.parametrize("number", range(len(FORMATS)), ids=FORMATS)
def test_damaged_files_are_one_error_or_what_they_say(number: int, tmp_path: Path) -> None:
    for seed in range(number, TRIALS * len(FORMATS), len(FORMATS)):
        folder = tmp_path / str(seed)
        folder.mkdir()
        trial(seed, folder)


@pytest.mark.parametrize("name", FORMATS)
def test_nothing_is_unpickled(name: str, tmp_path: Path) -> None:
    for file in good(name)[0]:
        path = tmp_path / "set" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps({b"data": Hostile(tmp_path / "executed")}))
    with pytest.raises(nt.NewtritonError, match=str(tmp_path / "set")):
        FORMATS[name].read(tmp_path / "set")
    assert not (tmp_path / "executed").exists()


def test_the_python_version_of_cifar_is_not_unpickled(tmp_path: Path) -> None:
    hostile = pickle.dumps({b"data": Hostile(tmp_path / "executed")})
    for name in ("data_batch_1", "data_batch_1.bin", "test_batch.bin"):
        (tmp_path / name).write_bytes(hostile)
    with pytest.raises(nt.NewtritonError, match="pickled, which is not read; get the binary"):
        nt.load("cifar10", tmp_path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("instead", INSTEAD)
def test_what_is_no_file_is_told_and_not_waited_for(instead, tmp_path: Path) -> None:
    path = tmp_path / "file"
    instead(path)
    for read in (Contents.of, lambda path: Images([path])):
        with bounded(instead.__name__), pytest.raises(nt.NewtritonError, match=f"{path} cannot be"):
            read(path)


def test_a_class_that_leads_to_itself_is_told(tmp_path: Path) -> None:
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "cat").symlink_to("cat")
    with pytest.raises(nt.NewtritonError, match="has the classes none"):
        nt.load("imagenet-10", tmp_path)


def _zipped_matrix(path: Path) -> None:
    """A zipped array of four gigabytes of zeros, the first 200 megabytes of which are there."""
    savemat(path, {"X": np.zeros((2, 3, 4), np.uint8)})
    inner = struct.pack("<2I", matlab.MATRIX, (1 << 32) - 8) + bytes(200 << 20)
    zipped = zlib.compress(inner, 1)
    header = path.read_bytes()[: matlab.HEADER]
    path.write_bytes(header + struct.pack("<2I", matlab.COMPRESSED, len(zipped)) + zipped)


def _large_picture(path: Path) -> None:
    Image.new("1", (9_000, 9_000)).save(path)


def _long_picture(path: Path) -> None:
    Image.new("1", (60_000, 1)).save(path)


@pytest.mark.parametrize(
    ("write", "read", "message"),
    [
        (
            lambda path: path.write_bytes(bomb(400 << 20)),
            Contents.of,
            r"more than \d+ bytes when unzipped",
        ),
        (_zipped_matrix, lambda path: matlab.read(path, {"X": 3}), r"more than \d+ bytes when"),
        (_large_picture, lambda path: Images([path])[:], "9000×9000 pixels"),
        (_long_picture, lambda path: Images([path], 224)[:], "pixels, where"),
    ],
)
def test_a_small_file_does_not_become_a_large_one(write, read, message, tmp_path: Path) -> None:
    path = tmp_path / "small.png"
    write(path)
    assert path.stat().st_size < 5 << 20
    with bounded(message), pytest.raises(nt.NewtritonError, match=message):
        read(path)


def test_files_are_annotated_once_each(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    path = tmp_path / "val" / "val_annotations.txt"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines, lines[0]]))
    with pytest.raises(nt.NewtritonError, match=r"val_0\.JPEG is none of .*, or is there twice"):
        nt.load("tiny-imagenet", tmp_path)
    path.write_text("".join(lines[:-2]))
    with pytest.raises(nt.NewtritonError, match=r"2 files of .* are missing, val_3\.JPEG for one"):
        nt.load("tiny-imagenet", tmp_path)


def test_kept_faces_in_a_pipe_are_not_left_to_others(tmp_path: Path) -> None:
    for name in INSTEAD[:4]:
        path = tmp_path / "olivetti_py3.pkz"
        name(path)
        with bounded(name.__name__), pytest.raises(nt.NewtritonError, match="cannot be read"):
            photographs(tmp_path)
        path.rmdir() if path.is_dir() else path.unlink()
