"""FITRE's points and SGD's rates that train well."""

from __future__ import annotations

from itertools import product

import pytest

from newtriton.bench.paper.fitre_robustness import (
    ROBUSTNESS,
    after_a_decade,
    good,
    scores,
    steady,
)
from newtriton.bench.paper.fitre_training import CASES, DAMPINGS, RADII, RATES
from newtriton.bench.protocol.experiment import Row, Setting


def made(method: str, accuracy: float | None, **options: float) -> Row:
    same = {
        "network": "VGG", "init": "kaiming", "method": method, "final_accuracy": accuracy,
        "final_loss": 0.1, "refused_share": 0.5, "moved": 1.0,
    }  # fmt: skip
    return same | options


def test_a_smoke_run_has_all_cases() -> None:
    rows = ROBUSTNESS.measure(Setting("smoke", (0,)))
    counts = {case: sum(row.get("case") == case for row in rows) for case in CASES}
    assert counts == dict.fromkeys(CASES, 2)
    assert not any(isinstance(value, list) for row in rows for value in row.values())
    assert len(ROBUSTNESS.findings(rows)) == 3
    assert len(ROBUSTNESS.figure(rows).axes) == 4


def test_a_score_is_the_median_and_a_failure_counts_as_no_accuracy() -> None:
    rows = [made("SGD", value, rate=1.0) for value in (0.9, 0.5, 0.7)]
    rows += [made("SGD", 0.8, rate=2.0) | {"fault": "diverged"}, made("SGD", None, rate=3.0)]
    assert scores(rows, "SGD", ("rate",)) == {(1.0,): 0.7, (2.0,): 0.0, (3.0,): 0.0}


def test_points_are_good_near_the_best_and_neighbours_are_a_decade_away() -> None:
    found = {(1e-3, 1.0): 0.6, (1e-2, 1.0): 0.9, (1e-2, 10.0): 0.89, (1e-3, 10.0): 0.1}
    assert good(found, 0.9, 0.02) == 2
    beside = after_a_decade(found, 0.9)
    assert sorted(beside) == [0.1, 0.6, 0.89, 0.9]
    assert steady(beside, 0.9) == 0.5
    assert after_a_decade({(1.0,): 0.5}, 0.5) == []
    assert steady([], 0.5) == 0.0


@pytest.mark.parametrize(
    ("off", "narrow", "verdicts"),
    [
        (0.01, True, ["agrees", "agrees", "open"]),
        (0.01, False, ["agrees", "contradicts", "open"]),
        (0.04, True, ["open", "agrees", "open"]),
        (0.2, False, ["contradicts", "contradicts", "open"]),
    ],
)
def test_verdicts_follow_the_shares(off: float, narrow: bool, verdicts: list[str]) -> None:
    points = {case: product(DAMPINGS, RADII) for case in CASES}
    rows = [
        made(f"FITRE {case}", 0.9 - off * (radius != 0.1), damping=damping, radius=radius)
        for case, grid in points.items()
        for damping, radius in grid
    ]
    rows += [made("SGD", 0.9 if rate == 0.1 or not narrow else 0.5, rate=rate) for rate in RATES]
    rows.append(made("FITRE, newtriton's defaults", 0.9))
    found = ROBUSTNESS.findings(rows)
    assert [finding.verdict for finding in found] == verdicts
    equal = 12 if off < 0.02 else 4  # those with a radius of 0.1
    assert f"{equal} of 12 of these combinations" in found[0].ours
