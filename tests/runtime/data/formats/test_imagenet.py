"""Folders of classes: numbered by name, and no name leads out of its folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from newtriton.compiler.graph.errors import NewtritonError
from newtriton.runtime.data.formats.imagenet import Part, read_classes, read_tiny

from ..writers import write_classes, write_jpeg, write_tiny


def tiny(root: Path) -> tuple[Part, Part]:
    return read_tiny(root / "wnids.txt", root / "train", root / "val")


def test_the_validation_part_may_have_folders_too(tmp_path: Path) -> None:
    written = write_tiny(tmp_path)[0]
    (tmp_path / "val/val_annotations.txt").unlink()
    for name in ("n01", "n02", "n03"):
        write_jpeg(tmp_path / f"val/{name}/{name}.jpg", (64, 64), 0)
    (x, y), (held_out, labels) = tiny(tmp_path)
    assert torch.equal(x[:], written[0])
    assert (y.tolist(), labels.tolist()) == ([0, 0, 0, 1, 1, 1, 2, 2, 2], [0, 1, 2])
    assert held_out.shape == (3, 3, 64, 64)


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("wnids.txt", "../../etc", "plain names"),
        ("wnids.txt", "/etc", "plain names"),
        ("val/val_annotations.txt", "../../wnids.txt\tn01", "plain names"),
        ("val/val_annotations.txt", "..\tn01", "plain names"),
        ("val/val_annotations.txt", "val_0.JPEG", "plain names"),
        ("val/val_annotations.txt", "val_0.JPEG\tn99\t0", "class 'n99' is none of the 3"),
    ],
)
def test_a_line_that_names_something_else_is_told(
    file: str, line: str, message: str, tmp_path: Path
) -> None:
    write_tiny(tmp_path)
    path = tmp_path / file
    before = path.read_bytes()
    path.write_bytes(before + line.encode() + b"\n")
    with pytest.raises(NewtritonError, match=f"{path.name}, byte {len(before)}: .*{message}"):
        tiny(tmp_path)


def test_folders_without_images_are_told(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    (tmp_path / "wnids.txt").write_text("n01\nn02\nn03\nn04\n")
    with pytest.raises(NewtritonError, match="n04 cannot be read: No such file"):
        tiny(tmp_path)
    (tmp_path / "train/n04").mkdir()
    with pytest.raises(NewtritonError, match="n04 has no JPEG files"):
        tiny(tmp_path)
    (tmp_path / "wnids.txt").write_text("\n")
    with pytest.raises(NewtritonError, match="byte 0: the file is empty"):
        tiny(tmp_path)


def test_both_parts_have_the_same_classes(tmp_path: Path) -> None:
    write_classes(tmp_path)
    (tmp_path / "val/emu").mkdir()
    with pytest.raises(NewtritonError, match=r"has the classes cat, dog and .* has cat, dog, emu"):
        read_classes(tmp_path / "train", tmp_path / "val")
