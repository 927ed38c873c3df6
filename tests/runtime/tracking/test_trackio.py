"""trackio gets each step once, in the run of one name."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import newtriton as nt

from .runs import missing, run, stand_in


class Run:
    """Stands in for trackio's run."""

    def __init__(self, project: str, config: Any, before: Run | None) -> None:
        self.project, self.config, self.finished = project, config, False
        self.rows: list[tuple[int, dict[str, float]]] = [] if before is None else before.rows
        self._next_step = max((step for step, _ in self.rows), default=-1) + 1

    def log(self, metrics: dict[str, Any], step: int | None = None) -> None:
        assert step is not None
        self.rows.append((step, metrics))

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> dict[str, Run]:
    made: dict[str, Run] = {}

    def init(
        project: str, name: str | None = None, group: str | None = None,
        space_id: str | None = None, config: Any = None, resume: str = "never",
        embed: bool = True,
    ) -> Run:  # fmt: skip
        assert name is not None and resume == "allow" and not embed
        made[name] = Run(project, config, made.get(name))
        return made[name]

    stand_in(monkeypatch, "trackio", init=init)
    return made


def steps(there: Run) -> list[tuple[int, float]]:
    return [(step, row["step/loss"]) for step, row in there.rows if "step/loss" in row]


def test_it_gets_every_step_and_epoch_once(runs: dict[str, Run], tmp_path: Path) -> None:
    history = run(tmp_path, 2, "never", nt.Trackio("digits"))
    (there,) = runs.values()
    assert there.project == "digits" and there.finished
    assert there.config["versions"]["newtriton"]
    assert steps(there) == [(step["step"], step["loss"]) for step in history.steps]
    epochs = [(step, row["epoch/loss"]) for step, row in there.rows if "epoch/loss" in row]
    assert epochs == [(epoch.steps, epoch.loss) for epoch in history.epochs]


def test_a_run_that_goes_on_logs_no_step_twice(runs: dict[str, Run], tmp_path: Path) -> None:
    run(tmp_path, 2, "never", nt.Trackio("digits", name="mine"))
    history = run(tmp_path, 3, "previous", nt.Trackio("digits", name="mine"))
    assert [*runs] == ["mine"]
    assert steps(runs["mine"]) == [(step["step"], step["loss"]) for step in history.steps]


def test_where_it_is_not_installed_that_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    missing(monkeypatch, "trackio")
    with pytest.raises(nt.NewtritonError, match="Trackio needs trackio: pip install trackio"):
        nt.Trackio()


@pytest.mark.skipif(find_spec("trackio") is None, reason="trackio is not installed")
def test_trackio_itself_takes_a_run_and_goes_on_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    run(tmp_path, 2, "never", nt.Trackio("digits", name="mine"))
    run(tmp_path, 3, "previous", nt.Trackio("digits", name="mine"))
    assert "Resumed existing run: mine" in capsys.readouterr().out
