"""Tables 5 and 6 of Newton methods for CNN at their smallest; what findings make of rows."""

from __future__ import annotations

from statistics import mean

import pytest
import torch

import newtriton as nt
from newtriton.bench.paper import newton_training as newton
from newtriton.bench.protocol.experiment import Row, Setting

SMOKE = Setting("smoke", seeds=(0,))


@pytest.mark.parametrize("name", newton.EXPERIMENTS)
def test_an_experiment_runs_to_its_findings(name: str) -> None:
    experiment = newton.EXPERIMENTS[name]
    rows = experiment.measure(SMOKE)
    assert {row["method"] for row in rows} >= {"Newton", "SG"}
    assert all(0.0 <= row["accuracy"] <= 1.0 for row in rows if "accuracy" in row)
    assert len(experiment.findings(rows)) == 3
    assert experiment.figure(rows).axes


def test_both_methods_start_from_the_same_weights_and_objective() -> None:
    (problem,) = newton.problems(SMOKE)
    models = [problem.model("3-layer CNN", seed=1, c=0.1) for _ in range(2)]
    assert torch.equal(models[0].params, models[1].params)
    assert models[0].weight_decay == pytest.approx(1 / 6000)
    x, y = problem.train
    ours, theirs = newton.newton(models[0], 1), newton.stochastic(models[1], 0.003)
    assert ours.step([(x, y)]).loss == pytest.approx(theirs.step(x, y).loss, rel=1e-6)


def test_the_rate_falls_as_in_algorithm_2() -> None:
    model = nt.compile(nt.Linear(2), (3,), nt.MSELoss(), backend="aten")
    optimizer = newton.stochastic(model, 0.1, gamma=0.5)
    rates = [optimizer.step(torch.ones(4, 3), torch.zeros(4, 2)).lr for _ in range(3)]
    assert rates == pytest.approx([0.1, 0.1 / 1.5, 0.1 / 2.0])


def test_folds_are_stratified_and_cover_all_samples() -> None:
    (problem,) = newton.problems(SMOKE)
    seen = []
    for kept, held_out in newton.folds(problem.train, 5):
        assert len(kept.y) + len(held_out.y) == len(problem.train.y)
        share = held_out.y.bincount(minlength=10) * 5 - problem.train.y.bincount(minlength=10)
        assert share.abs().max() < 10
        seen.append(len(held_out.y))
    assert sum(seen) == len(problem.train.y)


def rows_of(ours: float, theirs: float) -> list[Row]:
    made: list[Row] = []
    for network in newton.NETWORKS:
        found = {"rates": [0.003], "accuracies": [0.9], "lr": 0.003}
        validation = {**found, "epochs": 1, "seconds": 5.0}
        made.append(
            {"method": "cross validation", "data": "mnist", "network": network, **validation}
        )
        for method, accuracy in (("Newton", ours), ("SG", theirs)):
            row = {"method": method, "data": "mnist", "network": network, "seed": 0}
            made.append({**row, "accuracy": accuracy, "seconds": 3.0 if method == "SG" else 4.0})
    return made


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict"),
    [(0.99, 0.985, "agrees"), (0.90, 0.985, "contradicts"), (0.99, 0.9, "contradicts")],
)
def test_what_is_comparable(ours: float, theirs: float, verdict: str) -> None:
    comparable, deeper, validated = newton.accuracy_findings(rows_of(ours, theirs))
    assert comparable.verdict == verdict
    assert f"{100 * (ours - theirs):+.2f} points" in comparable.ours
    assert deeper.verdict == "open", "both networks are as good"
    assert validated.verdict == "agrees", "3 < 4 < 3 + 5 seconds"


def test_a_table_has_means_over_seeds() -> None:
    rows = [
        {"method": "SG", "C": c, "lr": lr, "seed": seed, "accuracy": c + lr + seed / 100}
        for c in (0.01, 0.1) for lr in (0.3, 0.03) for seed in (0, 1)
    ]  # fmt: skip
    cs, rates, means = newton.table(rows, "SG")
    assert (cs, rates) == ([0.01, 0.1], [0.3, 0.03])
    assert means[1, 0] == pytest.approx(100 * mean([0.4, 0.41]))
