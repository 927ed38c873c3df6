"""The battery: runs, their faults and refusals, and a file in which runs are kept."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import newtriton as nt
from newtriton.bench import battery
from newtriton.bench._entrants import ENTRANTS
from newtriton.bench._problems import PROBLEMS, Problem, perceptron


def points() -> tuple[Any, Any]:
    x = torch.linspace(-1.0, 1.0, 20).reshape(10, 2)
    return x.numpy(), (x.sum(1) > 0).long().numpy()


TINY = Problem("none", points, perceptron(nt.Tanh, 3, 2), nt.CrossEntropyLoss(), 4, 3)
DATA = TINY.samples()


class Doing:
    """An optimizer that does one thing to the parameters from its second step on."""

    def __init__(self, model: nt.Model, do: Any) -> None:
        self.model, self.do, self.steps = model, do, 0

    def step(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.steps += 1
        if self.steps > 1:
            self.do(self.model.params)


def refuse(params: torch.Tensor) -> None:
    raise nt.NewtritonError("ten steps")


@pytest.mark.parametrize(
    ("do", "fault", "updates"),
    [
        (refuse, "NewtritonError: ten steps", 2),
        (lambda params: params.fill_(torch.inf), "not finite", 2),
        (lambda params: params.mul_(-30.0), "ended above its start", 6),
    ],
)
def test_a_fault_is_told_and_ends_the_run_where_it_must(do: Any, fault: str, updates: int) -> None:
    found = battery.run(TINY, DATA, lambda model: Doing(model, do), seed=0)
    assert (found["fault"], found["updates"]) == (fault, updates)
    assert ("end" in found) == (fault != "not finite")
    json.dumps(found, allow_nan=False)


def branched() -> nt.Sequential:
    return nt.Sequential(nt.Linear(2), nt.Residual(nt.Linear(2)), nt.Linear(2))


def test_who_does_not_take_the_network_is_no_fault() -> None:
    problem = Problem("none", points, branched, nt.CrossEntropyLoss(), 4, 3)
    assert list(battery.run(problem, DATA, nt.KFRA, seed=0)) == ["refused"]
    assert "refused" not in battery.run(problem, DATA, nt.KFLR, seed=0)


def test_a_run_tells_when_it_reached_the_goal() -> None:
    adam = ENTRANTS["adam"].settings["lr=0.1"]
    found = battery.run(TINY, DATA, adam, seed=0)
    again = battery.run(TINY, DATA, adam, seed=0, goal=found["end"])
    assert again["end"] == found["end"] < found["start"] and "goal_updates" not in found
    assert 1 <= again["goal_updates"] <= again["updates"] == 6
    assert again["goal_seconds"] <= again["seconds"]


def test_who_steps_on_all_samples_makes_a_step_an_epoch() -> None:
    for name in ("newton-cg", "l-bfgs"):
        make = next(iter(ENTRANTS[name].settings.values()))
        found = battery.run(TINY, DATA, make, seed=0, whole=True)
        assert found["updates"] == 3 and found["end"] < found["start"]


def call(monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    monkeypatch.setattr(sys, "argv", ["battery", "--problems", "tiny", "--seeds", "0", *options])
    battery.main()


def test_what_the_file_has_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(PROBLEMS, "tiny", TINY)
    path = tmp_path / "deep" / "battery.json"
    call(monkeypatch, "--optimizers", "adam", "fitre", "--json", str(path))
    assert capsys.readouterr().out.splitlines()[0] == "| | best Adam | FITRE |"
    first = json.loads(path.read_text())
    assert {"date", "torch", "pytorch_optimizer"} <= set(first["machine"])
    assert [row["optimizer"] for row in first["rows"]] == ["adam"] * 6 + ["fitre"]
    assert {"goal", "adam_seconds", "run"} <= set(first["rows"][-1])

    call(monkeypatch, "--optimizers", "adam", "fitre", "sgd", "--json", str(path))
    more = json.loads(path.read_text())
    assert more["rows"][:7] == first["rows"] and len(more["rows"]) == 12

    call(monkeypatch, "--optimizers", "fitre", "--again", "--json", str(path))
    again = json.loads(path.read_text())
    changed = [a["optimizer"] for a, b in zip(again["rows"], more["rows"], strict=True) if a != b]
    assert changed == ["fitre"]  # its seconds

    for row in again["rows"][:6]:
        row["end"] = [end / 2 for end in row["end"]]
    path.write_text(json.dumps(again))
    call(monkeypatch, "--optimizers", "fitre", "--json", str(path))
    goal = json.loads(path.read_text())["rows"][6]["goal"]
    assert goal == [again["rows"][6]["goal"][0] / 2]  # what was timed up to another loss is not
