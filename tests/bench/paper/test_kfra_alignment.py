"""The alignment of KFRA's steps: rows along a trajectory, and verdicts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import newtriton as nt
from newtriton.bench.paper import kfra_alignment as experiment
from newtriton.bench.paper.kfra_alignment import ALIGNMENT, EXACT
from newtriton.bench.protocol.experiment import Setting


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return experiment.followed(Setting("smoke"), "CURVES", 0)


def test_steps_are_compared_along_a_trajectory(rows) -> None:
    whole = {row["method"]: row for row in experiment.along(rows)}
    assert {row["batch"] for row in rows} == {40, 20}
    assert whole["KFRA"]["update"] == [0, 2]
    assert len(whole["KFRA"]["layers"][0]) == 8
    assert whole[EXACT]["by_layer"] == pytest.approx([1.0, 1.0])
    assert all(abs(c) <= 1.0 + 1e-9 for row in whole.values() for c in row["whole"])
    assert ALIGNMENT.figure(rows).axes
    assert all(finding.ours for finding in ALIGNMENT.findings(rows))


def test_of_one_sample_kfra_and_kflr_are_exact_by_layer() -> None:
    net = nt.models.autoencoder(6, hidden=(4, 3))
    model = nt.compile(net, (6,), nt.BCEWithLogitsLoss(), dtype=torch.float64, seed=0)
    x = torch.rand(1, 6, dtype=torch.float64, generator=torch.manual_seed(0))
    lin = model.linearize(x, x)
    made = experiment.curvatures(Setting("smoke"), lin, 0)
    found = nt.alignment(lin, experiment.steps(lin, made, 0.1), damping=0.1)
    for name in ("KFRA", "KFLR"):
        assert list(found.layers[name].values()) == pytest.approx([1.0] * 4)
    assert min(found.layers["KFAC"].values()) < 0.999
    errors = experiment.factor_errors(made)
    assert max(errors["KFRA"], errors["KFLR"]) < 1e-12
    assert errors["KFAC"] > 0.1


def made(kfra: float, kfac: float) -> list[dict[str, Any]]:
    cosines = {"KFRA": kfra, "KFRA *": kfra, "KFAC": kfac, "KFAC *": kfac, EXACT: 1.0}
    return [
        {
            "set": "CURVES", "seed": seed, "method": method, "batch": 10, "update": [0, 9],
            "whole": [c, c], "by_layer": [c, c], "layers": [[c], [c]], "residual": [0.0, 0.0],
            "damping": [0.1, 0.01], "with_first_damping": c,
        }
        for method, c in cosines.items()
        for seed in (0, 1)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kfra", "kfac", "expected"), [(0.9, 0.5, "agrees"), (0.5, 0.9, "contradicts")]
)
def test_verdicts_follow_the_cosines(kfra: float, kfac: float, expected: str) -> None:
    by_layer, whole, *_ = ALIGNMENT.findings(made(kfra, kfac))
    assert {by_layer.verdict, whole.verdict} == {expected}
    mixed = [*made(kfra, kfac)[:10], *made(kfac, kfra)[10:]]
    assert ALIGNMENT.findings(mixed)[0].verdict == expected  # nothing is left out
