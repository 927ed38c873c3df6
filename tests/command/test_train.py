"""`newtriton train`, run in this process on a small network."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import newtriton as nt
from newtriton.command import catalogue
from newtriton.command import main as cli
from newtriton.runtime.diagnostics.densities import Density
from newtriton.runtime.training.history import History
from tests.command.test_main import one_line, small_cnn
from tests.runtime.training.kills import differing


def train(folder: Path, *arguments: str, report: bool = False) -> int:
    """Trains, without the report that takes a second to draw."""
    given = ["train", "--output", str(folder), *arguments]
    return cli.main(given if report else [*given, "--no-report"])


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
    assert not (tmp_path / "run" / "report.html").exists()
    weights = load_file(tmp_path / "run" / "weights.safetensors")
    assert weights["0.weight"].shape == (32, 1, 3, 3)


def test_a_run_ends_with_a_report_and_a_spectrum_where_one_is_taken(
    tmp_path: Path, monkeypatch, capsys
):
    few = tuple(nt.Samples(part.x[:60], part.y[:60]) for part in nt.digits())
    monkeypatch.setitem(catalogue.DATA, "digits", lambda: few)
    net = nt.Sequential(nt.AvgPool2d(4), nt.Flatten(), nt.Linear(10))
    monkeypatch.setitem(catalogue.NETWORKS, "cnn", lambda: net)
    options = ("--epochs", "1", "--optimizer", "kflr", "--average", "--spectrum", "ggn")
    assert train(tmp_path / "run", *options, report=True) == 0
    assert "report.html" in capsys.readouterr().out
    text = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Density of the eigenvalues of the Gauss–Newton matrix" in text
    model = nt.compile(net, (1, 8, 8), nt.CrossEntropyLoss())
    model.load_state_dict(load_file(tmp_path / "run" / "weights.safetensors"))
    expected = nt.density(model.linearize(*few[0]), "ggn")
    found = Density.load(tmp_path / "run" / "spectrum.json")
    assert found.exact and found.nodes[0].tolist() == pytest.approx(
        expected.nodes[0].tolist(), abs=1e-5
    )
    assert train(tmp_path / "run", "--epochs", "1", "--optimizer", "kflr", "--average",
                 "--resume") == 0  # fmt: skip


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


NET = """
from torch import nn
import newtriton as nt

class Net(nn.Sequential):
    def __init__(self, classes):
        super().__init__(nn.Flatten(), nn.Linear(64, 8), nn.SiLU(), nn.Linear(8, classes))

def data():
    train, test = nt.digits()
    return (train.x[:200], train.y[:200]), test
"""
FILE = """
optimizer = "kflr"
net = "a_users_net.py:Net"
data = "a_users_net.py:data"
epochs = 2
average = true
[set]
every = [2, 4]
"""


def test_a_file_of_options_trains_a_users_network_and_goes_on(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(History, "plot", lambda *_, **__: None)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    Path("a_users_net.py").write_text(NET)
    Path("run.toml").write_text(FILE)
    threads = torch.get_num_threads()
    assert train(tmp_path / "whole", "--config", "run.toml", "--threads", "1") == 0
    header, *rows, _ = capsys.readouterr().out.splitlines()
    assert header.split() == ["epoch", "loss", "val.", "loss", "accuracy", "refused", "seconds"]
    history = History.load("whole/history.json")
    for row, epoch in zip(rows, history.epochs, strict=True):
        number, loss, *_, refused, _ = row.split()
        assert (int(number), loss) == (epoch.number, f"{epoch.loss:.3g}")
        assert int(refused) == history.refused(epoch.number)
    assert train(tmp_path / "broken", "--config", "run.toml", "--epochs", "1") == 0
    assert train(tmp_path / "broken", "--config", "run.toml", "--resume") == 0
    for name in ("weights.safetensors", "last/state.safetensors"):
        whole, broken = (load_file(tmp_path / run / name) for run in ("whole", "broken"))
        assert not differing(whole, broken)
    assert "optimizer.average.mean.1.weight" in whole
    torch.set_num_threads(threads)


def test_the_weights_are_the_average_where_that_is_asked_for(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(History, "plot", lambda *_, **__: None)
    few = tuple(nt.Samples(part.x[:200], part.y[:200]) for part in nt.digits())
    monkeypatch.setitem(catalogue.DATA, "digits", lambda: few)
    monkeypatch.setitem(catalogue.NETWORKS, "cnn", small_cnn)
    options = ("--optimizer", "kflr", "--epochs", "2")
    assert train(tmp_path / "plain", *options) == 0
    assert train(tmp_path / "mean", *options, "--average") == 0
    plain, mean = (load_file(tmp_path / n / "weights.safetensors") for n in ("plain", "mean"))
    state = load_file(tmp_path / "mean" / "last" / "state.safetensors")
    assert all(torch.equal(plain[name], state[f"model.{name}"]) for name in plain)
    model = nt.compile(small_cnn(), (1, 8, 8), nt.CrossEntropyLoss())
    model.load_state_dict(mean)
    for name, mean in model.state_dict().items():
        assert torch.equal(mean, state[f"optimizer.average.mean.{name}"])
    (last,) = History.load(tmp_path / "mean" / "history.json").epochs[-1:]
    assert nt.evaluate(model, [few[1]]) == (last.validation_loss, last.validation_accuracy)


def test_batches_in_pieces_give_the_same_run_and_may_go_on_whole(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(History, "plot", lambda *_, **__: None)
    few = tuple(nt.Samples(part.x[:200], part.y[:200]) for part in nt.digits())
    monkeypatch.setitem(catalogue.DATA, "digits", lambda: few)
    monkeypatch.setitem(catalogue.NETWORKS, "cnn", small_cnn)
    options = ("--optimizer", "adam", "--batch-size", "100", "--epochs")
    assert train(tmp_path / "whole", *options, "2") == 0
    assert train(tmp_path / "cut", *options, "1", "--micro-batch", "30") == 0
    assert train(tmp_path / "cut", *options, "2", "--resume") == 0
    histories = [History.load(tmp_path / n / "history.json") for n in ("whole", "cut")]
    whole, cut = ([epoch.validation_loss for epoch in h.epochs] for h in histories)
    assert cut == pytest.approx(whole, rel=1e-4)


def test_a_folder_from_before_an_option_was_there_goes_on(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(History, "plot", lambda *_, **__: None)
    monkeypatch.setitem(catalogue.NETWORKS, "cnn", small_cnn)
    assert train(tmp_path, "--epochs", "1") == 0
    assert train(tmp_path, "--epochs", "1", "--resume", "--set", "every=3") == 2
    assert "was started with set {}, not {'every': 3}" in one_line(capsys.readouterr().err)
    path = tmp_path / "options.json"
    old = json.loads(path.read_text())
    for name in ("loss", "classes", "init", "batch_norm", "average", "set"):
        del old[name]
    path.write_text(json.dumps(old))
    assert train(tmp_path, "--epochs", "1", "--resume", "--loss", "mse") == 2
    assert train(tmp_path, "--epochs", "1", "--resume") == 0


def test_data_without_classes_have_no_accuracy(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(History, "plot", lambda *_, **__: None)
    few = nt.Samples(torch.rand(20, 6), torch.rand(20, 6))
    monkeypatch.setitem(catalogue.DATA, "digits", lambda: (few, few))
    assert train(tmp_path, "--net", "mlp", "--classes", "6", "--loss", "bce", "--epochs", "1") == 0
    assert capsys.readouterr().out.splitlines()[1].split()[3] == "–"


def test_a_users_parts_train_and_go_on(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setitem(catalogue.NETWORKS, "cnn", small_cnn)
    Path("parts_of_mine.py").write_text(
        "import newtriton as nt\n"
        "class Solver(nt.KFI): ...\n"
        "def factors(model): return nt.KroneckerCurvature(model, 'kflr')\n"
        "rule = nt.TrustRegion(max_radius=0.5)\n"
    )
    parts = {"solver": "Solver", "curvature": "factors", "rule": "rule"}
    given = {name: f"parts_of_mine.py:{part}" for name, part in parts.items()}
    options = [text for n, part in given.items() for text in ("--set", f"{n}={part}")]
    options = ["--optimizer", "second-order", "--batch-size", "700", *options]
    assert train(tmp_path / "run", *options, "--epochs", "1") == 0
    assert train(tmp_path / "run", *options, "--epochs", "2", "--resume") == 0
    assert json.loads((tmp_path / "run" / "options.json").read_text())["set"] == given
    history = History.load(tmp_path / "run" / "history.json")
    assert len(history.epochs) == 2
    assert max(step["radius"] for step in history.steps) <= 0.5
    wrong = ["--optimizer", "second-order", "--set", "rule=parts_of_mine:Solver"]
    assert train(tmp_path / "other", *wrong, "--epochs", "1") == 2
    assert "give a step rule" in one_line(capsys.readouterr().err)


def test_help_lists_the_keywords_of_the_optimizer(capsys, tmp_path: Path):
    (tmp_path / "run.toml").write_text('optimizer = "lbfgs"')
    for arguments, keyword in [
        (["--help"], "max_radius=none"),
        (["--optimizer", "kfac", "--help"], "every=1,20"),
        (["--help", "--optimizer=eacg"], "alpha=0.05"),
        (["--config", str(tmp_path / "run.toml"), "--help"], "history_size=100"),
    ]:
        with pytest.raises(SystemExit) as end:
            cli.main(["train", *arguments])
        assert not end.value.code
        assert keyword in capsys.readouterr().out


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
        (["--checkpoint-every", "often"], "checkpoint_every is 'often': give a number of steps"),
        (["--keep", "0"], "--keep is 0"),
        (["--threads", "0"], "--threads is 0"),
        (["--set", "dampin=1"], "fitre has no 'dampin'; it takes damping, max_radius"),
        (["--set", "damping=much"], "--set damping=much: give a number, or none"),
        (["--set", "damping=1", "--damping", "1"], "--damping is --set damping=…: give one"),
        (["--micro-batch", "0"], "--micro-batch is 0"),
        (["--timeout", "0"], "--timeout is 0"),
        (["--memory", "all"], "memory is 'all'"),
        (["--memory", "nan"], "memory is nan"),
        (["--set", "micro_batch=9", "--micro-batch", "9"], "--micro-batch is --set micro_batch=…"),
        (["--set", "max_radius=1", "--radius", "1"], "--radius is --set max_radius=…"),
        (["--optimizer", "lbfgs", "--set", "history_size=0.5"], "give a whole number"),
        (["--optimizer", "sgd", "--set", "momentum=-1"], "momentum"),
        (["--optimizer", "adam", "--average"], "keeps no average of the parameters"),
        (["--loss", "mse", "--classes", "3"], "label"),
        (["--classes", "3"], "label"),
        (["--config", "no/such.toml"], "no/such.toml"),
        (["--preprocessing", "blur"], "blur"),
        (["--data", "mnist", "--data-dir", "no/such"], "no/such"),
    ],
)
def test_unusable_values_take_one_line(tmp_path: Path, capsys, arguments: list[str], message: str):
    assert train(tmp_path, *arguments) == 2
    assert message in one_line(capsys.readouterr().err)
    assert not [*tmp_path.iterdir()]  # no run has begun


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_the_step_and_ends_with_its_status(
    tmp_path: Path, monkeypatch, number: int, status: int
):
    monkeypatch.setattr(History, "plot", lambda *_, **__: None)
    few = tuple(nt.Samples(part.x[:400], part.y[:400]) for part in nt.digits())
    monkeypatch.setitem(catalogue.DATA, "digits", lambda: few)
    monkeypatch.setitem(catalogue.NETWORKS, "cnn", small_cnn)
    options = ("--epochs", "2", "--checkpoint-every", "10m", "--keep", "1")
    assert train(tmp_path / "whole", *options) == 0
    step, steps = nt.FITRE.step, []

    def signalled(*arguments: object) -> object:
        steps.append(1)
        if len(steps) == 6:  # in the second of two epochs of four
            os.kill(os.getpid(), number)
        return step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(nt.FITRE, "step", signalled)
        try:
            assert train(tmp_path / "parts", *options) == status
        except SystemExit as end:
            assert end.code == status
    assert len(steps) == 6
    assert len(History.load(tmp_path / "parts" / "history.json").steps) == 6
    assert train(tmp_path / "parts", *options, "--resume", "auto") == 0
    for name in ("weights.safetensors", "last/state.safetensors"):
        whole, parts = (load_file(tmp_path / run / name) for run in ("whole", "parts"))
        assert not differing(whole, parts)


def test_an_unwritable_folder_takes_one_line(tmp_path: Path, capsys):
    (tmp_path / "file").write_text("")
    assert train(tmp_path / "file") == 2
    assert "file" in one_line(capsys.readouterr().err)
