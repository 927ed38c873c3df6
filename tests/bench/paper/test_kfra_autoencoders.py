"""KFRA's autoencoders: rows, the grid of Adam, and what rows say of the claims."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import newtriton as nt
from newtriton.bench.paper import kfra_autoencoders as experiment
from newtriton.bench.paper.kfra_autoencoders import AUTOENCODERS, METHODS, TASKS
from newtriton.bench.protocol.experiment import Finding, Setting


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return AUTOENCODERS.measure(Setting("smoke", (0,)))


def test_every_method_trains_every_autoencoder(rows) -> None:
    assert {row["set"] for row in rows} == set(TASKS)
    assert all("fault" not in row for row in rows)
    for name in TASKS:
        found = {row["method"]: row for row in rows if row["set"] == name}
        assert set(found) > set(METHODS)
        assert len({row["loss"][0] for row in found.values()}) == 1  # the same weights
        assert found["KFRA"]["loss"][-1] < found["KFRA"]["loss"][0]
        assert found["Adam, default"]["update"][-1] == 8 * found["KFRA"]["update"][-1]
    assert AUTOENCODERS.figure(rows).axes
    assert all(finding.ours for finding in AUTOENCODERS.findings(rows))


def test_the_grid_is_the_papers() -> None:
    grid = experiment.adams(Setting("full"), 40000)
    assert len(grid) == 1 + 8 * 5
    assert "Adam 1/8192, halved every 2500" in grid


@pytest.mark.parametrize("name", TASKS)
def test_images_are_in_the_unit_range(name: str) -> None:
    x = experiment.images(Setting("smoke"), name).x
    assert (x.dim(), float(x.min()), float(x.max()) <= 1.0) == (2, 0.0, True)


def test_an_autoencoder_has_the_papers_widths() -> None:
    assert experiment.hidden(Setting("full")) == (1000, 500, 250, 30)
    assert {task.updates for task in TASKS.values()} == {5000, 20000}


def row(method: str, seed: int, last: float, seconds: float = 1.0) -> dict[str, Any]:
    return {
        "set": "FACES", "data": "faces", "method": method, "seed": seed, "update": [0, 4, 8],
        "seconds": [0.0, seconds / 2, seconds], "loss": [9.0, 5.0, last],
        "refused": 0,
    }  # fmt: skip


def made(**last: float) -> list[dict[str, Any]]:
    losses = {name: 2.0 for name in METHODS} | {
        "Adam, default": 4.0, "Adam 1/64": 3.0, "Adam 1/128": 3.5,
    }  # fmt: skip
    return [row(name, seed, loss) for name, loss in (losses | last).items() for seed in (0, 1)]


def found(rows: list[dict[str, Any]], claim: str) -> Finding:
    (finding,) = [f for f in AUTOENCODERS.findings(rows) if claim in f.paper]
    return finding


@pytest.mark.parametrize(
    ("claim", "last", "expected"),
    [
        ("best Adam of 40", {}, "contradicts"),  # after as many updates as Adam's
        ("best Adam of 40", {"KFAC": 9.0, "KFRA": 9.0}, "contradicts"),
        ("speedup over K-FAC", {"KFRA": 1.0, "KFRA, averaged": 1.0}, "agrees"),
        ("speedup over K-FAC", {"KFRA": 1.0, "KFRA, averaged": 3.0}, "open"),
        ("speedup over K-FAC", {"KFRA": 3.0, "KFRA, averaged": 3.0}, "contradicts"),
        ("Momentum", {"KFRA, with momentum": 1.0}, "contradicts"),
        ("Momentum", {"KFRA, with momentum": 3.0}, "agrees"),
        ("sensitive to its rate", {}, "contradicts"),
    ],
)
def test_verdicts_follow_the_rows(claim: str, last: dict[str, float], expected: str) -> None:
    assert found(made(**last), claim).verdict == expected


def test_fewer_updates_for_the_same_loss_agree() -> None:
    rows = made()
    for one in rows:
        if one["method"] in METHODS:
            one["update"] = [0, 1, 2]
    finding = found(rows, "best Adam of 40")
    assert finding.verdict == "agrees"
    assert "KFRA 0.25, KFAC 0.25" in finding.ours


def test_runs_that_fail_come_last_and_are_told() -> None:
    rows = made()
    for one in rows:
        if one["method"] in ("Adam, default", "Adam 1/64"):
            one |= {"fault": "diverged"}
    assert experiment.ranking(rows)[0] == "Adam 1/128"
    assert found(rows, "sensitive to its rate").verdict == "agrees"
    assert len(experiment.merged(rows, experiment.ranking(rows), "all")) == 2


def test_images_of_another_range_are_scaled() -> None:
    given: Callable[[torch.Tensor], torch.Tensor] = experiment.in_unit_range
    assert given(torch.tensor([-1.0, 0.0, 1.0])).tolist() == [0.0, 0.5, 1.0]
    assert given(torch.tensor([0.1, 0.9])).tolist() == torch.tensor([0.1, 0.9]).tolist()
    assert nt.curves(2).x.max() <= 1.0
