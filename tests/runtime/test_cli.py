"""The commands, over a stand-in for the compiled model."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

import newtriton as nt
from newtriton import bench
from newtriton.runtime import choices, cli
from newtriton.runtime.history import History


class LinearModel:
    """Softmax regression, in the place of what nt.compile returns."""

    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self, net: Any, input_shape: tuple[int, ...], loss: Any, **options: Any) -> None:
        self.options = options
        self.weight = torch.zeros(input_shape[-1] * input_shape[-2], 10)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) @ self.weight

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return cross_entropy(self(x), y)

    def explain(self) -> str:
        return f"kernels of the {self.options['backend']} backend"

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"0.weight": self.weight}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        self.weight = state["0.weight"]


@dataclass
class Report:
    loss: float


class Momentum:
    """Gradient descent with momentum: an optimizer whose state matters."""

    def __init__(self, model: LinearModel, rate: float = 0.01) -> None:
        self.model, self.rate = model, rate
        self.velocity = torch.zeros_like(model.weight)

    def step(self, x: torch.Tensor, y: torch.Tensor) -> Report:
        with torch.enable_grad():
            weight = self.model.weight.clone().requires_grad_()
            loss = cross_entropy(x.flatten(1) @ weight, y)
            (gradient,) = torch.autograd.grad(loss, weight)
        self.velocity = 0.9 * self.velocity - self.rate * gradient
        self.model.weight = self.model.weight + self.velocity
        return Report(loss.item())

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"velocity": self.velocity}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        self.velocity = state["velocity"]


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    monkeypatch.setattr(nt, "compile", LinearModel, raising=False)
    method = choices.Method(Momentum, {"lr": "rate"})
    monkeypatch.setitem(choices.OPTIMIZERS, "sgd", method)


def train(folder: Path, *arguments: str) -> int:
    return cli.main(["train", "--optimizer", "sgd", "--output", str(folder), *arguments])


def one_line(text: str) -> str:
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    return text


def test_a_run_prints_a_row_per_epoch_and_leaves_its_files(tmp_path: Path, capsys):
    assert train(tmp_path / "run", "--epochs", "3", "--lr", "0.1") == 0
    header, *rows, last = capsys.readouterr().out.splitlines()
    assert header.split()[:2] == ["epoch", "loss"]
    assert [row.split()[0] for row in rows] == ["1", "2", "3"]
    assert str(tmp_path / "run") in last
    history = History.load(tmp_path / "run" / "history.json")
    assert len(history.epochs) == 3
    assert history.epochs[-1].validation_accuracy > 0.8
    assert (tmp_path / "run" / "plot.png").exists()
    assert load_file(tmp_path / "run" / "weights.safetensors")["0.weight"].any()


def test_a_resumed_run_ends_where_an_unbroken_one_does(tmp_path: Path):
    assert train(tmp_path / "whole", "--epochs", "3") == 0
    assert train(tmp_path / "broken", "--epochs", "1") == 0
    assert train(tmp_path / "broken", "--epochs", "3", "--resume") == 0
    whole, broken = (
        load_file(tmp_path / name / "weights.safetensors")["0.weight"]
        for name in ("whole", "broken")
    )
    assert torch.equal(whole, broken)
    assert len(History.load(tmp_path / "broken" / "history.json").epochs) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--damping", "0.1"], "--damping is not for sgd, which takes --lr"),
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


def test_inspect_prints_what_the_model_says(capsys):
    assert cli.main(["inspect", "--net", "cnn", "--input", "1x8x8", "--backend", "aten"]) == 0
    assert capsys.readouterr().out == "kernels of the aten backend\n"


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
    command = [sys.executable, "-m", "newtriton.runtime.cli", "--help"]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "train" in run.stdout
