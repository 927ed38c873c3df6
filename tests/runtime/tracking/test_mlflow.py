"""MLflow gets each step once, in few calls, in the run with the tag."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

import newtriton as nt

from .runs import missing, run, stand_in


class Metric(NamedTuple):
    key: str
    value: float
    timestamp: int
    step: int


class Param(NamedTuple):
    key: str
    value: str


class Store:
    """Stands in for what MLflow keeps: experiments and runs."""

    def __init__(self) -> None:
        self.experiments: list[str] = []
        self.runs: list[SimpleNamespace] = []
        self.calls = 0


class Client:
    """Stands in for MLflow's client."""

    store: Store

    def __init__(self, tracking_uri: str | None = None, registry_uri: str | None = None) -> None:
        self.tracking_uri = tracking_uri

    def get_experiment_by_name(self, name: str) -> Any:
        known = name in self.store.experiments
        return SimpleNamespace(experiment_id=name) if known else None

    def create_experiment(
        self, name: str, artifact_location: str | None = None, tags: Any = None
    ) -> str:
        self.store.experiments.append(name)
        return name

    def create_run(
        self, experiment_id: str, start_time: int | None = None, tags: Any = None,
        run_name: str | None = None,
    ) -> Any:  # fmt: skip
        info = SimpleNamespace(run_id=str(len(self.store.runs)), status="RUNNING")
        made = SimpleNamespace(
            info=info, experiment=experiment_id, tags=tags, name=run_name, metrics=[], params={}
        )
        self.store.runs.append(made)
        return made

    def search_runs(
        self, experiment_ids: list[str], filter_string: str = "", run_view_type: int = 1,
        max_results: int = 1000, order_by: Any = None, page_token: str | None = None,
    ) -> list[Any]:  # fmt: skip
        tag, value = re.fullmatch(r"tags\.`(.*)` = '(.*)'", filter_string).groups()  # type: ignore
        return [
            run for run in self.store.runs
            if run.experiment in experiment_ids and run.tags.get(tag) == value
        ]  # fmt: skip

    def update_run(self, run_id: str, status: str | None = None, name: str | None = None) -> None:
        self.store.runs[int(run_id)].info.status = status

    def log_batch(
        self, run_id: str, metrics: Sequence[Metric] = (), params: Sequence[Param] = (),
        tags: Any = (), synchronous: bool | None = None,
    ) -> None:  # fmt: skip
        assert len(metrics) <= 1000 and len(params) <= 100
        self.store.calls += 1
        self.store.runs[int(run_id)].metrics += metrics
        self.store.runs[int(run_id)].params |= {p.key: p.value for p in params}

    def get_metric_history(self, run_id: str, key: str) -> list[Metric]:
        return [metric for metric in self.store.runs[int(run_id)].metrics if metric.key == key]

    def set_terminated(
        self, run_id: str, status: str | None = None, end_time: int | None = None
    ) -> None:
        self.store.runs[int(run_id)].info.status = status


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    Client.store = Store()
    entities = SimpleNamespace(Metric=Metric, Param=Param)
    stand_in(monkeypatch, "mlflow", MlflowClient=Client, entities=entities)
    return Client.store


def losses(there: Any, kind: str) -> list[tuple[float, int]]:
    return [(m.value, m.step) for m in there.metrics if m.key == f"{kind}/loss"]


def test_it_gets_every_step_and_epoch_once(store: Store, tmp_path: Path) -> None:
    history = run(tmp_path, 2, "never", nt.MLflow("digits", run_name="first"))
    (there,) = store.runs
    assert (there.experiment, there.name, there.info.status) == ("digits", "first", "FINISHED")
    assert losses(there, "step") == [(step["loss"], step["step"]) for step in history.steps]
    assert losses(there, "epoch") == [(epoch.loss, epoch.steps) for epoch in history.epochs]
    assert (there.params["optimizer.class"], there.params["options.net"]) == ("KFAC", "mlp")
    assert store.calls <= 2 + 2 * 2, "parameters, the first step, each epoch, the end"


def test_a_run_that_goes_on_is_found_and_gets_nothing_twice(store: Store, tmp_path: Path) -> None:
    run(tmp_path, 2, "never", nt.MLflow())
    history = run(tmp_path, 3, "previous", nt.MLflow())
    (there,) = store.runs
    assert losses(there, "step") == [(step["loss"], step["step"]) for step in history.steps]
    assert losses(there, "epoch") == [(epoch.loss, epoch.steps) for epoch in history.epochs]
    assert there.info.status == "FINISHED"
    run(tmp_path / "other", 1, "never", nt.MLflow())
    assert (len(store.runs), store.experiments) == (2, ["newtriton"])


def test_a_run_that_fails_has_failed_there(store: Store, tmp_path: Path) -> None:
    def stop(history: nt.History) -> None:
        raise RuntimeError("the user's own")

    with pytest.raises(RuntimeError):
        run(tmp_path, 2, "never", nt.MLflow(), stop)
    (there,) = store.runs
    assert there.info.status == "FAILED"
    assert len(losses(there, "step")) == 2, "what waited has been sent"


def test_where_it_is_not_installed_that_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    missing(monkeypatch, "mlflow")
    with pytest.raises(nt.NewtritonError, match="MLflow needs mlflow: pip install mlflow"):
        nt.MLflow()


@pytest.mark.skipif(find_spec("mlflow") is None, reason="mlflow is not installed")
def test_mlflow_itself_has_each_step_once(tmp_path: Path) -> None:
    from mlflow import MlflowClient  # noqa: PLC0415

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    run(tmp_path, 2, "never", nt.MLflow(tracking_uri=uri))
    history = run(tmp_path, 3, "previous", nt.MLflow(tracking_uri=uri))
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("newtriton")
    assert experiment is not None
    (there,) = client.search_runs([experiment.experiment_id])
    found = client.get_metric_history(there.info.run_id, "step/loss")
    assert [(m.value, m.step) for m in found] == [(s["loss"], s["step"]) for s in history.steps]
