"""Lines of JSON: each step is there once, and what is no run's is left alone."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

import newtriton as nt
from newtriton.runtime.tracking.json_lines import read_events

from .runs import run


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_step_can_be_read_when_it_has_been_made(tmp_path: Path) -> None:
    path, seen = tmp_path / "deep" / "run.jsonl", []

    class Reader(nt.Tracker):
        def record(self, event: dict) -> None:
            seen.append(lines(path)[-1] == event)

    history = run(tmp_path, 2, "never", nt.JSONLines(path), Reader())
    assert seen == [True] * 6
    assert [e for e in lines(path) if e["event"] == "step"] == [
        {"event": "step", **step} for step in history.steps
    ]


def test_what_a_killed_run_wrote_beyond_where_it_goes_on_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    run(tmp_path, 2, "never", nt.JSONLines(path))
    with path.open("a") as file:
        file.write('{"event": "step", "step": 5, "lo')  # it was killed while it wrote
    history = run(tmp_path, 3, "previous", nt.JSONLines(path))
    events = lines(path)
    assert [e["step"] for e in events if e["event"] == "step"] == [1, 2, 3, 4, 5, 6]
    assert [e["number"] for e in events if e["event"] == "epoch"] == [1, 2, 3]
    assert [e["loss"] for e in events if e["event"] == "step"] == [s["loss"] for s in history.steps]
    assert [e["event"] for e in events if "run" in e] == ["begun", "resumed"]
    assert not path.with_name("run.jsonl.new").exists()


def test_a_file_that_lacks_steps_gets_them_from_the_history(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    run(tmp_path, 2, "never", nt.JSONLines(path))
    kept = path.read_text().splitlines(keepends=True)[:3]  # as where the disk was full
    path.write_text("".join(kept))
    run(tmp_path, 3, "last", nt.JSONLines(path))
    assert [e["step"] for e in lines(path) if e["event"] == "step"] == [1, 2, 3, 4, 5, 6]
    assert [e["number"] for e in lines(path) if e["event"] == "epoch"] == [1, 2, 3]


def test_another_run_and_other_files_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    run(tmp_path / "a", 1, "never", nt.JSONLines(path))
    for text in (path.read_text(), "mine\n", '{"run": 3}\n', "x" * (1 << 17)):
        path.write_text(text)
        with pytest.raises(nt.NewtritonError, match="holds another run, or something else"):
            run(tmp_path / "b", 1, "auto", nt.JSONLines(path))
        assert path.read_text() == text


@pytest.mark.parametrize("text", ["", '{"event": "begun", "run": "0'])
def test_a_file_without_a_whole_line_is_begun_anew(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text(text)
    run(tmp_path, 1, "never", nt.JSONLines(path))
    assert [e["event"] for e in lines(path)] == ["begun", "step", "step", "epoch", "ended"]


@pytest.mark.parametrize(
    "line", ["mine", "[]", '{"event": "stop"}', '{"event": "step"}', '{"event": "epoch"}',
             '{"event": "ended", "steps": null, "epochs": 1}', '{"event": ["step"]}'],
)  # fmt: skip
def test_a_damaged_line_is_one_error_with_its_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "run.jsonl"
    run(tmp_path, 1, "never", nt.JSONLines(path))
    first, *rest = path.read_text().splitlines(keepends=True)
    path.write_text("".join([first, f"{line}\n", *rest]))
    text = path.read_text()
    with pytest.raises(nt.NewtritonError, match=r"run\.jsonl is damaged at line 2 .*move it away"):
        read_events(path)
    with pytest.raises(nt.NewtritonError, match="damaged at line 2"):
        run(tmp_path, 2, "last", nt.JSONLines(path))
    assert path.read_text() == text


def test_a_loss_that_is_not_finite_stays_what_it_is(tmp_path: Path) -> None:
    tracker = nt.JSONLines(tmp_path / "run.jsonl")
    tracker.begin({"event": "begun", "run": "a", "steps": 0, "epochs": 0})
    tracker.record({"event": "step", "step": 1, "loss": math.nan, "new_loss": -math.inf})
    tracker.end({"event": "failed", "steps": 1, "epochs": 0})
    _, step, _ = read_events(tmp_path / "run.jsonl")
    assert math.isnan(step["loss"]) and step["new_loss"] == -math.inf


def test_bad_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(nt.NewtritonError, match="path is 3: give the path of a file"):
        nt.JSONLines(3)  # type: ignore[arg-type]
    with pytest.raises(nt.NewtritonError, match="give True or False"):
        nt.JSONLines("x", steps=1)  # type: ignore[arg-type]
    (tmp_path / "file").write_text("")
    with pytest.raises(nt.NewtritonError, match="cannot be written"):
        run(tmp_path, 1, "never", nt.JSONLines(tmp_path / "file" / "run.jsonl"))
