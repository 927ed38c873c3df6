"""FITRE beside SGD and L-BFGS: the paper's problems, and how curves are read."""

from __future__ import annotations

import pytest

from newtriton.bench.paper.fitre_convergence import (
    CONVERGENCE,
    Lines,
    at,
    holding,
    level,
    speed_up,
    tables,
)
from newtriton.bench.paper.fitre_training import CASES, PAPER
from newtriton.bench.protocol.experiment import Row, Setting
from newtriton.bench.protocol.training import most

SETTING = Setting("smoke", (0,))


def test_the_full_size_has_the_papers_problems() -> None:
    assert (len(PAPER.points), len(PAPER.rates), PAPER.batch_size) == (30, 9, 200)
    found = list(tables())
    assert {p.table for p in found} == {f"Table {k}" for k in range(4, 9)} | {"section 4"}
    assert {p.epochs for p in found if p.data == "tiny-imagenet"} == {25}
    assert {(p.depth, p.data) for p in found if p.bfgs} == {(16, "cifar100")}


@pytest.fixture(scope="module")
def convergence() -> list[Row]:
    return CONVERGENCE.measure(SETTING)


def test_all_methods_have_curves(convergence: list[Row]) -> None:
    methods = {row["method"] for row in convergence if "epoch" in row}
    assert methods == {
        *(f"FITRE {case}" for case in CASES), "FITRE, newtriton's defaults", "SGD",
        "L-BFGS, batches", "L-BFGS, all data",
    }  # fmt: skip
    assert {row.get("every") for row in convergence} == {None, 5, 25}
    assert len(CONVERGENCE.findings(convergence)) == 7
    assert CONVERGENCE.figure(convergence).axes


def made(method: str, losses: list[float], accuracies: list[float], seconds: float) -> Row:
    epochs = list(range(len(losses)))
    return {
        "network": "VGG", "init": "kaiming", "batch_norm": False, "method": method, "decay": 0.0,
        "every": 5, "damping": 1.0, "radius": 1.0, "rate": 1.0, "seed": 0, "case": "kfac",
        "epoch": epochs, "seconds": [seconds * epoch for epoch in epochs],
        "update": [10 * epoch for epoch in epochs], "loss": losses, "accuracy": accuracies,
    }  # fmt: skip


def test_curves_are_read_at_the_same_epoch_and_second() -> None:
    lines = Lines(
        [made("FITRE kfac", [2.0, 1.0, 0.5], [0.1, 0.5, 0.9], 3.0),
         made("SGD", [2.0, 1.5, 1.2, 1.1, 0.9], [0.1, 0.2, 0.3, 0.6, 0.9], 2.0)]
    )  # fmt: skip
    assert (lines.loss("FITRE kfac"), lines.loss("SGD")) == (0.5, 1.2)
    assert lines.loss_in_time("SGD", 1.0) == 1.1
    assert lines.loss_in_time("SGD", 0.5) == 1.5
    assert (lines.seconds_to("FITRE kfac", 0.55), lines.seconds_to("SGD", 0.55)) == (6.0, 6.0)
    assert (lines.epochs_to("FITRE kfac", 0.55), lines.epochs_to("SGD", 0.55)) == (2, 3)
    assert lines.seconds_to("SGD", 0.95) == float("inf")
    assert lines.update("SGD") == 200.0
    assert most(lines.of("SGD")[0]) == lines.accuracy("SGD") == 0.9


def test_a_run_that_failed_has_no_loss() -> None:
    assert at(made("SGD", [2.0], [0.1], 1.0) | {"fault": "diverged"}, "epoch", 3) is None


def test_verdicts_on_several_problems_say_where_a_claim_holds() -> None:
    low = [
        made("FITRE kfac", [2.0, 0.5], [0.1, 0.9], 1.0),
        made("SGD", [2.0, 1.0], [0.1, 0.8], 1.0),
    ]
    high = [made("FITRE kfac", [2.0, 1.5], [0.1, 0.2], 1.0), *low[1:]]
    groups = {"A": Lines(low), "B": Lines(high)}

    def lower(lines: Lines) -> bool:
        return lines.loss("FITRE kfac") < lines.loss("SGD")

    assert holding(groups, lower) == ("open", "it holds for A alone; ")
    assert holding({"A": groups["A"]}, lower) == ("agrees", "")
    assert holding({"B": groups["B"]}, lower) == ("contradicts", "")


def test_seconds_are_counted_to_what_others_reach_where_sgd_learns_nothing() -> None:
    rows = [
        made("FITRE kfac", [2.0, 0.5], [0.1, 0.9], 1.0),
        made("SGD", [2.0, 2.0], [0.1, 0.1], 1.0),
    ]
    rows.append(made("FITRE, newtriton's defaults", [2.0, 0.5], [0.1, 0.95], 1.0))
    assert level(Lines(rows)) == pytest.approx(0.94)
    assert speed_up(Lines(rows)) == 0.0
    rows[1] = made("SGD", [2.0, 1.0], [0.1, 0.8], 2.0)
    assert level(Lines(rows)) == pytest.approx(0.79)
    assert speed_up(Lines(rows)) == 2.0
