"""Figure 3 of Newton methods for CNN and the costs of the product, at their smallest."""

from __future__ import annotations

import math

import newtriton as nt
from newtriton.bench.paper import newton_product as product
from newtriton.bench.protocol.experiment import Setting


def test_the_experiment_runs_to_its_findings() -> None:
    experiment = product.EXPERIMENTS["newton-product"]
    rows = experiment.measure(Setting("smoke", seeds=(0,)))
    assert [row["kind"] for row in rows] == ["curve"] * 6 + ["step"] + ["product"] * 2
    assert len(experiment.findings(rows)) == 4
    assert experiment.findings(rows)[2].verdict == "agrees", "the formula counts what is stored"
    assert experiment.figure(rows).axes


def test_the_papers_formula_counts_a_small_network() -> None:
    net = nt.Sequential(nt.Conv2d(4, 3, padding=1), nt.MaxPool2d(2), nt.Flatten(), nt.Linear(10))
    assert product.formula_87(net, (1, 6, 6)) == 10 * (4 * 36 + 10)


def test_the_second_at_which_an_accuracy_is_reached() -> None:
    row = {"accuracy": [0.1, 0.8, 0.7, 0.9], "seconds": [0.0, 1.0, 2.0, 3.0]}
    assert product.reached(row, 0.8) == 1.0
    assert product.reached(row, 0.85) == 3.0
    assert math.isinf(product.reached(row, 0.95))
