"""The commands, run in this process on a small network."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import newtriton as nt
from newtriton import bench
from newtriton.command import catalogue as choices
from newtriton.command import main as cli
from newtriton.runtime.training.history import History


def train(folder: Path, *arguments: str) -> int:
    return cli.main(["train", "--output", str(folder), *arguments])


def one_line(text: str) -> str:
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    return text


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


@pytest.mark.parametrize("optimizer", choices.OPTIMIZERS)
def test_a_resumed_run_ends_where_an_unbroken_one_does(tmp_path: Path, monkeypatch, optimizer: str):
    monkeypatch.setattr(History, "plot", lambda *_, **__: None)  # drawing takes longest
    few = tuple(nt.Samples(part.x[:400], part.y[:400]) for part in nt.digits())
    monkeypatch.setitem(choices.DATA, "digits", lambda: few)
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "COMMAND"),
        (["train"], "--output"),
        (["train", "--output", "x", "--net", "transformer"], "transformer"),
        (["train", "--output", "x", "--epochs", "many"], "many"),
        (["inspect", "--net", "cnn", "--input", "3x-2"], "write it like 3x32x32"),
    ],
)
def test_what_cannot_be_parsed_takes_one_line(capsys, arguments: list[str], message: str):
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    assert message in one_line(capsys.readouterr().err)


def test_an_unwritable_folder_takes_one_line(tmp_path: Path, capsys):
    (tmp_path / "file").write_text("")
    assert train(tmp_path / "file") == 2
    assert "file" in one_line(capsys.readouterr().err)


def test_inspect_prints_what_programs_cost(capsys):
    assert cli.main(["inspect", "--net", "cnn", "--input", "1x8x8", "--batch", "32"]) == 0
    shown = capsys.readouterr().out
    assert "batch 32" in shown
    assert "hvp" in shown


@pytest.mark.parametrize("net", choices.NETWORKS)
def test_inspect_knows_every_network(net: str, capsys):
    size = "784" if net == "autoencoder" else "3x32x32"
    command = ["inspect", "--net", net, "--input", size, "--program", "evaluate"]
    assert cli.main(command) == 0
    assert capsys.readouterr().out.startswith("evaluate: ")


def test_inspect_prints_graphs(capsys):
    assert cli.main(["inspect", "--net", "cnn", "--input", "1x8x8", "--graph"]) == 0
    shown = capsys.readouterr().out
    titles = [line.partition(":")[0] for line in shown.splitlines() if line[0] != " "]
    assert titles[:4] == ["evaluate", "linearize", "hvp", "ggnvp"]
    assert cli.main(["inspect", "--net", "cnn", "--input", "1x8x8", "--program", "hvp"]) == 0
    assert capsys.readouterr().out.startswith("hvp: ")


def test_inspect_refuses_images_that_are_too_small(capsys):
    assert cli.main(["inspect", "--net", "cnn", "--input", "1x2x2", "--graph"]) == 2
    assert "layer" in one_line(capsys.readouterr().err)


def test_bench_lists_runs_and_refuses(tmp_path: Path, monkeypatch, capsys):
    (tmp_path / "speed.py").write_text(
        "import sys\nif __name__ == '__main__':\n    print('measured', *sys.argv[1:])\n"
    )
    monkeypatch.setattr(bench, "__path__", [str(tmp_path)])
    monkeypatch.setattr(sys, "argv", ["newtriton"])
    assert cli.main(["bench"]) == 0
    assert capsys.readouterr().out == "speed\n"
    assert cli.main(["bench", "speed", "--batch", "64"]) == 0
    assert capsys.readouterr().out == "measured --batch 64\n"
    assert cli.main(["bench", "sped"]) == 2
    assert one_line(capsys.readouterr().err).endswith("'sped': speed\n")


def test_the_command_is_installed():
    command = [sys.executable, "-m", "newtriton.command.main", "--help"]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "train" in run.stdout
