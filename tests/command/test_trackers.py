"""Trackers by name, beside a run that is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

import newtriton as nt
from newtriton.command import catalogue
from newtriton.command import main as cli
from newtriton.command.trackers import TRACKERS, trackers
from newtriton.runtime.tracking.json_lines import read_events
from tests.command.test_main import one_line, small_cnn
from tests.runtime.tracking.runs import missing, stand_in


def test_a_run_is_followed_and_goes_on_in_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = tuple(nt.Samples(part.x[:60], part.y[:60]) for part in nt.digits())
    monkeypatch.setitem(catalogue.DATA, "digits", lambda: few)
    monkeypatch.setitem(catalogue.NETWORKS, "cnn", small_cnn)
    monkeypatch.setattr(nt.History, "plot", lambda *_, **__: None)
    given = ["train", "--output", str(tmp_path / "run"), "--optimizer", "adam", "--no-report"]
    for epochs, more in (("1", ()), ("2", ("--resume",))):
        path = str(tmp_path / "other.jsonl")
        tracks = ("--track", "json", "--track", f"json={path}")
        assert cli.main([*given, "--epochs", epochs, *tracks, *more]) == 0
    for file in (tmp_path / "run" / "steps.jsonl", tmp_path / "other.jsonl"):
        events = read_events(file)
        assert [e["step"] for e in events if e["event"] == "step"] == [1, 2]
        assert events[0]["options"]["optimizer"] == "adam"


def test_every_tracker_has_a_place_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("torch.utils.tensorboard", "wandb", "mlflow", "trackio"):
        stand_in(monkeypatch, name, SummaryWriter=str)
    by_default = trackers([*TRACKERS], tmp_path)
    assert [type(tracker).__name__ for tracker in by_default] == [
        *("JSONLines", "TensorBoard", "WandB", "MLflow", "Trackio"),
    ]
    _, board, wandb, mlflow, _ = trackers([f"{name}=mine" for name in TRACKERS], tmp_path)
    assert (board.log_dir, wandb.project, mlflow.experiment) == (Path("mine"), "mine", "mine")


def test_what_cannot_follow_takes_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing(monkeypatch, "wandb")
    for track, message in [
        ("tensorbord", "--track is 'tensorbord': one of 'json', 'tensorboard', 'wandb'"),
        ("wandb", "WandB needs wandb: pip install wandb"),
    ]:
        arguments = ["train", "--output", str(tmp_path / "run"), "--track", track]
        assert cli.main(arguments) == 2
        assert message in one_line(capsys.readouterr().err)
    assert not (tmp_path / "run").exists()
