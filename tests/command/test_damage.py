"""Damaged files of records, options and weights are read or named, and none is waited for."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch

import newtriton as nt
from newtriton.command import main as cli
from newtriton.command.inspect import weights

from ..damage import INSTEAD, Hostile, bounded, folder, pipe
from .damage import FORMATS, trial

TRIALS = 40  # of each format


@pytest.mark.parametrize("number", range(len(FORMATS)), ids=FORMATS)
def test_damaged_files_are_read_or_named(number: int, tmp_path: Path) -> None:
    for seed in range(number, TRIALS * len(FORMATS), len(FORMATS)):
        (tmp_path / str(seed)).mkdir()
        trial(seed, tmp_path / str(seed))


@pytest.mark.parametrize("instead", [i for i in INSTEAD if i.__name__ != "nothing"])
@pytest.mark.parametrize("name", FORMATS)
def test_what_is_no_file_is_named_and_not_waited_for(name: str, instead, tmp_path: Path) -> None:
    instead(tmp_path / name)
    with bounded(instead.__name__), pytest.raises(nt.NewtritonError, match=str(tmp_path / name)):
        FORMATS[name].read(tmp_path / name)


def test_weights_are_not_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(pickle.dumps({"weight": Hostile(tmp_path / "executed")}))
    with pytest.raises(nt.NewtritonError, match=r"weights\.safetensors holds no weights"):
        weights(path)
    torch.save({"weight": torch.ones(1)}, path)
    with pytest.raises(nt.NewtritonError, match=r"weights\.safetensors holds no weights"):
        weights(path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("instead", [pipe, folder])
def test_the_command_line_says_so_in_a_line(instead, tmp_path: Path, capsys) -> None:
    instead(tmp_path / "run.toml")
    given = ["train", "--config", str(tmp_path / "run.toml"), "--output", str(tmp_path / "run")]
    with bounded(instead.__name__):
        assert cli.main(given) == cli.CANNOT
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "run.toml cannot be read" in said
    assert os.listdir(tmp_path) == ["run.toml"]
