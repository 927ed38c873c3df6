"""The stream to MLflow."""

from __future__ import annotations

import time
from typing import Any

from ...compiler.graph.calls import Checked
from .events import ENDED, EPOCH, FAILED, INTERRUPTED, Event, Place, number_of, scalars_of
from .tracker import Tracker, began, library

TAG = "newtriton.run"  # by which a run is found again
STATUS = {ENDED: "FINISHED", INTERRUPTED: "KILLED", FAILED: "FAILED"}
MOST, SECONDS = 500, 5.0  # metrics that are sent together, of 1,000 at most; how long they wait
LONGEST = 500  # characters of a parameter
NAME, LAST = "epoch/number", "step/loss"  # metrics that say how far a run has come


class MLflow(Checked, Tracker):
    """Logs the scalars of a run to MLflow, against the number of updates.

    They are sent together, after each epoch, each five seconds and at the end. The run's options
    and versions are its parameters. A run that goes on is found by its tag `newtriton.run`; what it
    has already is not sent again.

    Args:
        experiment: the name of the experiment, which is made where there is none.
        tracking_uri: where MLflow keeps its runs; its own default unless given.
        run_name: the name of the run; MLflow's own unless given.

    Raises:
        NewtritonError: mlflow is not installed; when a run begins, it cannot begin there.

    Examples:
        Where mlflow is installed:

        >>> import newtriton as nt
        >>> tracker = nt.MLflow("digits")  # doctest: +SKIP
    """

    def __init__(
        self,
        experiment: str = "newtriton",
        *,
        tracking_uri: str | None = None,
        run_name: str | None = None,
    ) -> None:
        self._library = library("mlflow", "mlflow", "MLflow")
        self.experiment, self.tracking_uri, self.run_name = experiment, tracking_uri, run_name
        self._client: Any = None
        self._id = ""
        self._waiting: list[Any] = []
        self._sent = 0.0

    def begin(self, event: Event) -> Place:
        """Makes a run there, or goes on with it."""
        self.run, self._waiting = event["run"], []
        with began("MLflow"):
            self._client = self._library.MlflowClient(self.tracking_uri)
            found = self._client.get_experiment_by_name(self.experiment)
            made = self._client.create_experiment
            experiment = made(self.experiment) if found is None else found.experiment_id
            runs = self._client.search_runs([experiment], f"tags.`{TAG}` = '{self.run}'")
            if runs:
                self._id = runs[0].info.run_id
                self._client.update_run(self._id, status="RUNNING")
                return Place(int(self._last(LAST, "step")), int(self._last(NAME, "value")))
            tags = {TAG: self.run}
            self._id = self._client.create_run(
                experiment, tags=tags, run_name=self.run_name
            ).info.run_id
            parameter = self._library.entities.Param
            given = [parameter(name, str(value)[:LONGEST]) for name, value in _flat(event).items()]
            self._client.log_batch(self._id, params=given)
        return Place()

    def record(self, event: Event) -> None:
        """Takes in the scalars of a step or an epoch."""
        metric, at = self._library.entities.Metric, int(1000 * time.time())
        for name, value in scalars_of(event).items():
            self._waiting.append(metric(name, value, at, number_of(event)))
        late = time.monotonic() - self._sent > SECONDS
        if event["event"] == EPOCH or len(self._waiting) >= MOST or late:
            self._send()

    def end(self, event: Event) -> None:
        """Ends the run there."""
        if self._client is not None:
            self._send()
            self._client.set_terminated(self._id, STATUS[event["event"]])
        self._client = None

    def _send(self) -> None:
        """Sends what waits."""
        waiting, self._waiting, self._sent = self._waiting, [], time.monotonic()
        self._client.log_batch(self._id, metrics=waiting)

    def _last(self, name: str, field: str) -> float:
        """Returns the largest step, or value, of a metric; 0 where there is none."""
        history = self._client.get_metric_history(self._id, name)
        return max((getattr(metric, field) for metric in history), default=0)


def _flat(event: Event) -> dict[str, Any]:
    """Returns what is told about a run, what is inside dictionaries by joined names."""
    flat: dict[str, Any] = {}
    for name, value in event.items():
        inner = _flat(value) if isinstance(value, dict) else {"": value}
        flat |= {f"{name}.{rest}".strip("."): part for rest, part in inner.items()}
    return flat
