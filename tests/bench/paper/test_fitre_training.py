"""FITRE beside SGD and L-BFGS: networks, the choice of points, and what rows say."""

from __future__ import annotations

import pytest

import newtriton as nt
from newtriton.bench.paper.experiment import Row, Setting
from newtriton.bench.paper.fitre_training import (
    BATCH_NORM,
    CASES,
    CONVERGENCE,
    PAPER,
    SMOKE,
    Lines,
    Problem,
    Task,
    at,
    network,
    sgd,
    tables,
)
from newtriton.bench.paper.training import most
from newtriton.compiler.layers.models import VGG

SETTING = Setting("smoke", (0,))


def count(net: nt.Sequential, kind: type) -> int:
    return sum(isinstance(layer, kind) for layer in net.layers)


@pytest.mark.parametrize("depth", VGG)
@pytest.mark.parametrize(("pixels", "pools"), [(8, 3), (16, 4), (28, 4), (31, 4), (32, 5), (64, 5)])
def test_a_network_has_all_convolutions_and_the_pools_that_its_images_allow(
    depth: int, pixels: int, pools: int
) -> None:
    net = network(depth, pixels, 10, batch_norm=True, init="default", thin=16)
    assert count(net, nt.MaxPool2d) == pools
    assert count(net, nt.Conv2d) == count(net, nt.BatchNorm2d) == depth - 3
    nt.compile(net, (1, pixels, pixels), nt.CrossEntropyLoss(), device="cpu")


def test_the_full_network_is_the_one_of_the_papers() -> None:
    made = network(16, 32, 100, batch_norm=False, init="kaiming")
    assert repr(made) == repr(nt.models.vgg16(100, init="kaiming"))


def test_the_full_size_has_the_papers_problems() -> None:
    assert (len(PAPER.points), len(PAPER.rates), PAPER.batch_size) == (30, 9, 200)
    found = list(tables())
    assert {p.table for p in found} == {f"Table {k}" for k in range(4, 9)} | {"section 4"}
    assert {p.epochs for p in found if p.data == "tiny-imagenet"} == {25}
    assert {(p.depth, p.data) for p in found if p.bfgs} == {(16, "cifar100")}


def test_the_best_point_is_run_with_all_seeds_and_others_are_brief() -> None:
    task = Task.of(Problem("Table 6", "cifar100", 11, "kaiming"), SMOKE, Setting("smoke", (3, 4)))
    rates = [{"rate": rate} for rate in (1e-6, 0.05, 1e30)]
    rows = task.tuned("SGD", sgd, rates, lambda row: -row["loss"][-1])
    assert [(row["rate"], row["seed"], "epoch" in row) for row in rows] == [
        (1e-6, 3, False), (1e30, 3, False), (0.05, 3, True), (0.05, 4, True)
    ]  # fmt: skip
    assert rows[0]["data"] == "100 samples of digits in place of cifar100"
    assert "fault" in rows[1]


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
    assert len(CONVERGENCE.findings(convergence)) == 6
    assert CONVERGENCE.figure(convergence).axes


def test_batch_norm_is_on_and_off() -> None:
    rows = BATCH_NORM.measure(SETTING)
    assert {row["batch_norm"] for row in rows} == {False, True}
    assert len(BATCH_NORM.findings(rows)) == 2
    assert len(BATCH_NORM.figure(rows).axes) == 3


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
    assert lines.loss_in_time("SGD") == 1.1
    assert (lines.seconds_to("FITRE kfac", 0.55), lines.seconds_to("SGD", 0.55)) == (6.0, 6.0)
    assert (lines.epochs_to("FITRE kfac", 0.55), lines.epochs_to("SGD", 0.55)) == (2, 3)
    assert lines.seconds_to("SGD", 0.95) == float("inf")
    assert lines.update("SGD") == 200.0
    assert most(lines.of("SGD")[0]) == lines.accuracy("SGD") == 0.9


def test_a_run_that_failed_has_no_loss() -> None:
    assert at(made("SGD", [2.0], [0.1], 1.0) | {"fault": "diverged"}, "epoch", 3) is None
