"""Weights & Biases gets each step once, under one id."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import newtriton as nt

from .runs import missing, run, stand_in


class Service:
    """Stands in for wandb: its runs, by their ids, which it goes on with unless it is offline."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.offline, self.error = False, None

    def init(
        self, entity: str | None = None, project: str | None = None, dir: Any = None,
        id: str | None = None, name: str | None = None, notes: str | None = None,
        tags: Any = None, config: Any = None, mode: str | None = None, resume: Any = None,
        settings: Any = None,
    ) -> Run:  # fmt: skip
        if self.error is not None:
            raise self.error
        assert id is not None and resume == "allow"
        before = None if self.offline else self.runs.get(id)
        self.runs[id] = Run(project, config, before)
        return self.runs[id]


class Run:
    """Stands in for wandb's run."""

    def __init__(self, project: str | None, config: Any, before: Run | None) -> None:
        self.project, self.config, self.exit_code = project, config, None
        self.rows = {} if before is None else before.rows
        self.resumed = before is not None
        self.starting_step = max(self.rows, default=-1) + 1
        self.summary: dict[str, Any] = {}
        for row in self.rows.values():
            self.summary |= row

    def log(
        self, data: dict[str, Any], step: int | None = None, commit: bool | None = None
    ) -> None:
        assert step is not None and step >= max(self.rows, default=0), "steps that go back are lost"
        row = self.rows.setdefault(step, {})
        assert not row.keys() & data.keys(), "twice"
        row |= data

    def finish(self, exit_code: int | None = None) -> None:
        self.exit_code = exit_code


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    made = Service()
    stand_in(monkeypatch, "wandb", init=made.init)
    return made


def test_it_gets_every_step_and_epoch_once(service: Service, tmp_path: Path) -> None:
    history = run(tmp_path, 2, "never", nt.WandB("digits", name="first"))
    ((_, there),) = service.runs.items()
    assert (there.project, there.exit_code) == ("digits", 0)
    assert there.config["optimizer"] == {"class": "KFAC", "every": [1, 2]}
    assert [row["step/loss"] for row in there.rows.values()] == [s["loss"] for s in history.steps]
    assert {n: row["epoch/loss"] for n, row in there.rows.items() if "epoch/loss" in row} == {
        epoch.steps: epoch.loss for epoch in history.epochs
    }


def test_a_run_that_goes_on_is_the_same_and_logs_nothing_twice(
    service: Service, tmp_path: Path
) -> None:
    run(tmp_path, 2, "never", nt.WandB("digits"))
    history = run(tmp_path, 3, "previous", nt.WandB("digits"))
    ((_, there),) = service.runs.items()
    assert there.resumed and [*there.rows] == [1, 2, 3, 4, 5, 6]
    assert [row["step/loss"] for row in there.rows.values()] == [s["loss"] for s in history.steps]


def test_offline_the_new_folder_has_all_of_the_run(service: Service, tmp_path: Path) -> None:
    service.offline = True
    run(tmp_path, 2, "never", nt.WandB("digits", mode="offline"))
    run(tmp_path, 3, "previous", nt.WandB("digits", mode="offline"))
    ((_, there),) = service.runs.items()
    assert [*there.rows] == [1, 2, 3, 4, 5, 6]


def test_a_run_that_fails_has_failed_there(service: Service, tmp_path: Path) -> None:
    def fail(history: nt.History) -> None:
        raise RuntimeError("the user's own")

    with pytest.raises(RuntimeError):
        run(tmp_path, 2, "never", nt.WandB(), fail)
    assert [there.exit_code for there in service.runs.values()] == [1]


def test_what_cannot_begin_is_one_error_before_training(service: Service, tmp_path: Path) -> None:
    service.error = RuntimeError("no API key\nis configured")
    with pytest.raises(
        nt.NewtritonError,
        match="no run can begin with Weights & Biases: no API key is configured",
    ):
        run(tmp_path, 2, "never", nt.WandB())
    assert not (tmp_path / "run" / "history.json").exists()


def test_where_it_is_not_installed_that_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    missing(monkeypatch, "wandb")
    with pytest.raises(nt.NewtritonError, match="WandB needs wandb: pip install wandb"):
        nt.WandB()


@pytest.mark.skipif(find_spec("wandb") is None, reason="wandb is not installed")
def test_wandb_itself_takes_a_run_offline(tmp_path: Path) -> None:
    options = {"mode": "offline", "dir": str(tmp_path)}
    run(tmp_path, 2, "never", nt.WandB("digits", **options))
    run(tmp_path, 3, "previous", nt.WandB("digits", **options))
    assert len({path.name[-32:] for path in (tmp_path / "wandb").glob("offline-run-*")}) == 1
