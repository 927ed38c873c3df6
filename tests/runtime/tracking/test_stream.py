"""Each tracker hears of all of a run once, and none of them can end it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import newtriton as nt
from newtriton.runtime.tracking.events import Event, Place
from newtriton.runtime.tracking.json_lines import read_events
from tests.runtime.parallel.workers import workers

from .runs import Recorder, run


def test_a_run_is_told_from_its_beginning_to_its_end(tmp_path: Path) -> None:
    tracker = Recorder()
    history = run(tmp_path, 2, "never", tracker)
    begun, *_, ended = tracker.events
    steps = [{"event": "step", **step} for step in history.steps]
    assert [event for event in tracker.events if event["event"] == "step"] == steps
    assert [e["loss"] for e in tracker.events if e["event"] == "epoch"] == [
        epoch.loss for epoch in history.epochs
    ]
    assert tracker.kinds == ["begun", *["step", "step", "epoch"] * 2, "ended"]
    assert (begun["steps"], begun["epochs"]) == (0, 0)
    assert begun["optimizer"] == {"class": "KFAC", "every": [1, 2]}
    assert begun["options"] == {"epochs": 2, "average": False, "net": "mlp", "lr": 0.1,
                                "damping": None}  # fmt: skip
    assert begun["versions"]["torch"] == torch.__version__
    assert begun["model"]["parameters"] == 47
    assert begun["data"] == {"batches": 2, "batch_size": 4}
    assert (ended["steps"], ended["epochs"]) == (4, 2)


def test_a_run_that_goes_on_is_the_same_and_new_trackers_get_what_came_before(
    tmp_path: Path,
) -> None:
    first, second, third = Recorder(), Recorder(), Recorder()
    run(tmp_path, 2, "never", first)
    history = run(tmp_path, 3, "previous", first, second)
    assert first.numbers("step") == [1, 2, 3, 4, 4, 5, 6], "it is told where the run goes on"
    resumed = next(event for event in first.events if event["event"] == "resumed")
    assert (resumed["steps"], resumed["epochs"]) == (3, 1)
    assert resumed["run"] == first.events[0]["run"]
    assert second.numbers("step") == [1, 2, 3, 4, 5, 6]
    assert second.numbers("epoch") == [1, 2, 3]
    assert [e["loss"] for e in second.events if e["event"] == "step"] == [
        step["loss"] for step in history.steps
    ]
    run(tmp_path, 3, "last", third)
    assert third.kinds == ["resumed", *["step", "step", "epoch"] * 3, "ended"]


def test_a_tracker_gets_nothing_that_it_has_already(tmp_path: Path) -> None:
    run(tmp_path, 2, "never")
    tracker = Recorder(has=Place(5, 2))
    run(tmp_path, 4, "previous", tracker)
    assert tracker.numbers("step") == [6, 7, 8]
    assert tracker.numbers("epoch") == [3, 4]


def test_a_history_that_is_continued_is_the_same_run() -> None:
    model = nt.compile(nt.Linear(2), (3,), nt.CrossEntropyLoss(), device="cpu")
    data, tracker, optimizer = [(torch.eye(3), torch.tensor([0, 1, 1]))], Recorder(), nt.KFAC(model)
    history = nt.fit(model, optimizer, data, progress=False, callbacks=[tracker])
    nt.fit(model, optimizer, data, progress=False, callbacks=[tracker], history=history)
    assert tracker.kinds == [*["begun", "step", "epoch", "ended"],
                             *["resumed", "step", "epoch", "ended"]]  # fmt: skip
    assert tracker.numbers("step") == [1, 2]
    assert len({event["run"] for event in tracker.events if "run" in event}) == 1
    nt.fit(model, optimizer, data, progress=False, callbacks=[tracker])
    assert len({event["run"] for event in tracker.events if "run" in event}) == 2, "another run"


class Failing(Recorder):
    """Fails at one of its calls."""

    def __init__(self, at: int, error: type[BaseException] = OSError) -> None:
        super().__init__()
        self.at, self.error = at, error

    def record(self, event: Event) -> None:
        super().record(event)
        if len(self.events) > self.at:
            raise self.error("No space left on device")

    end = record


@pytest.mark.parametrize("at", [1, 3, 7])
def test_a_tracker_that_fails_is_told_nothing_more_and_training_goes_on(
    tmp_path: Path, at: int
) -> None:
    bad, good = Failing(at), Recorder()
    with pytest.warns(UserWarning, match="Failing follows the run no longer") as told:
        history = run(tmp_path, 2, "never", bad, good)
    assert len(told) == 1
    assert "No space left" in str(told[0].message)
    assert len(bad.events) == at + 1
    assert good.numbers("step") == [step["step"] for step in history.steps] == [1, 2, 3, 4]


def test_a_tracker_that_cannot_begin_ends_the_call_and_others_are_told(tmp_path: Path) -> None:
    class Unable(nt.Tracker):
        def begin(self, event: Event) -> Place:
            raise nt.NewtritonError("no network")

    other = Recorder()
    with pytest.raises(nt.NewtritonError, match="no network"):
        run(tmp_path, 2, "never", other, Unable())
    assert other.kinds == ["begun", "failed"]
    assert other.events[-1]["error"] == "NewtritonError: no network"


def test_errors_and_interrupts_of_a_run_are_told(tmp_path: Path) -> None:
    def fail(history: nt.History) -> None:
        raise RuntimeError("the user's own")

    tracker = Recorder()
    with pytest.raises(RuntimeError, match="own"):
        run(tmp_path, 2, "never", fail, tracker)
    assert tracker.kinds == ["begun", "step", "step", "epoch", "failed"]
    assert tracker.events[-1]["error"] == "RuntimeError: the user's own"
    assert (tracker.events[-1]["steps"], tracker.events[-1]["epochs"]) == (2, 1)
    steps = iter(range(3))

    class Interrupting(Recorder):
        def record(self, event: Event) -> None:
            super().record(event)
            if next(steps, None) == 2:
                raise KeyboardInterrupt

    tracker = Interrupting()
    assert run(tmp_path / "other", 2, "never", tracker).interrupted
    assert tracker.kinds == ["begun", "step", "step", "epoch", "interrupted"]


def test_the_folder_of_a_run_has_its_events_without_steps(tmp_path: Path) -> None:
    run(tmp_path, 1, "never")
    run(tmp_path, 2, "last")
    events = read_events(tmp_path / "run" / "events.jsonl")
    assert [event["event"] for event in events] == [
        *("begun", "epoch", "ended"), *("resumed", "epoch", "ended"),
    ]  # fmt: skip
    assert events[0]["run"] == events[3]["run"]


def test_a_run_that_was_killed_before_it_was_saved_begins_again_as_the_same(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    first = Failing(2, SystemExit)
    with pytest.raises(SystemExit):
        run(tmp_path, 2, "auto", nt.JSONLines(path), first)
    for name in ("last", "history.json", "weights.safetensors", "best"):
        (tmp_path / "run" / name).unlink(missing_ok=True)
    for generation in (tmp_path / "run" / "generations").glob("*"):
        generation.rename(tmp_path / generation.name)
    tracker = Recorder()
    run(tmp_path, 2, "auto", nt.JSONLines(path), tracker)
    assert tracker.events[0]["event"] == "resumed"
    assert tracker.events[0]["run"] == first.events[0]["run"]
    steps = [event["step"] for event in read_events(path) if event["event"] == "step"]
    assert steps == [1, 2, 3, 4]


def _on_a_rank(parallel: nt.DataParallel, folder: str) -> list[str]:
    model = nt.compile(nt.Linear(2), (3,), nt.CrossEntropyLoss(), device="cpu", parallel=parallel)
    x, y = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 2
    tracker = Recorder()
    lines = nt.JSONLines(Path(folder) / "lines.jsonl")
    data = nt.Batches(x, y, 4, parallel=parallel)
    nt.fit(model, nt.KFAC(model), data, progress=False, callbacks=[lines, tracker])
    return tracker.kinds


def test_of_several_ranks_the_first_one_tells(tmp_path: Path) -> None:
    told = workers(2)(_on_a_rank, str(tmp_path))
    assert told == [["begun", "step", "step", "epoch", "ended"], []]
    assert len(read_events(tmp_path / "lines.jsonl")) == 5
