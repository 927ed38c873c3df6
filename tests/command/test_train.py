"""`newtriton train`, run in this process on a small network."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import newtriton as nt
from newtriton.command import catalogue
from newtriton.command import main as cli
from newtriton.runtime.training.history import History
from tests.command.test_main import one_line, small_cnn


def train(folder: Path, *arguments: str) -> int:
    return cli.main(["train", "--output", str(folder), *arguments])


def test_a_run_prints_a_row_per_epoch_and_leaves_its_files(tmp_path: Path, capsys):
    assert train(tmp_path / "run", "--optimizer", "fitre", "--epochs", "3", "--radius", "0.5") == 0
    header, *rows, last = capsys.readouterr().out.splitlines()
    assert header.split()[:2] == ["epoch", "loss"]
    assert [row.split()[0] for row in rows] == ["1", "2", "3"]
    assert str(tmp_path / "run") in last
    history = History.load(tmp_path / "run" / "history.json")
    assert len(history.epochs) == 3
    assert history.epochs[-1].validation_accuracy > 0.9
    assert max(step["radius"] for step in history.steps) <= 0.5
    assert (tmp_path / "run" / "plot.png").exists()
    weights = load_file(tmp_path / "run" / "weights.safetensors")
    assert weights["0.weight"].shape == (32, 1, 3, 3)


@pytest.mark.parametrize("optimizer", catalogue.OPTIMIZERS)
def test_a_resumed_run_ends_where_an_unbroken_one_does(tmp_path: Path, monkeypatch, optimizer: str):
    monkeypatch.setattr(History, "plot", lambda *_, **__: None)  # drawing takes longest
    few = tuple(nt.Samples(part.x[:400], part.y[:400]) for part in nt.digits())
    monkeypatch.setitem(catalogue.DATA, "digits", lambda: few)
    monkeypatch.setitem(catalogue.NETWORKS, "cnn", small_cnn)
    options = ("--optimizer", optimizer, "--batch-size", "110")  # four batches, one of them short
    assert train(tmp_path / "whole", *options, "--epochs", "3") == 0
    assert train(tmp_path / "broken", *options, "--epochs", "1") == 0
    assert train(tmp_path / "broken", *options, "--epochs", "3", "--resume") == 0
    whole, broken = (
        load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "broken")
    )
    assert all(torch.equal(whole[name], broken[name]) for name in whole)
    assert len(History.load(tmp_path / "broken" / "history.json").epochs) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--optimizer", "sgd", "--damping", "1"], "--damping is not for sgd, which takes --lr"),
        (["--optimizer", "sgd", "--lr", "-1"], "-1"),
        (["--radius", "0"], "0"),
        (["--net", "transformer"], "one of cnn, mlp, cnn3"),
        (["--net", "vgg11"], "layer"),
        (["--seed", "-1"], "-1"),
        (["--batch-size", "0"], "batch_size is 0"),
        (["--epochs", "0"], "--epochs is 0"),
        (["--resume"], "no run to resume"),
    ],
)
def test_unusable_values_take_one_line(tmp_path: Path, capsys, arguments: list[str], message: str):
    assert train(tmp_path, *arguments) == 2
    assert message in one_line(capsys.readouterr().err)


def test_an_unwritable_folder_takes_one_line(tmp_path: Path, capsys):
    (tmp_path / "file").write_text("")
    assert train(tmp_path / "file") == 2
    assert "file" in one_line(capsys.readouterr().err)
