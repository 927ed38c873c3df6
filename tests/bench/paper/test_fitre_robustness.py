"""FITRE's points and SGD's rates that train well."""

from __future__ import annotations

import pytest

from newtriton.bench.paper.experiment import Row, Setting
from newtriton.bench.paper.fitre_robustness import ROBUSTNESS, decade_away, good, scores
from newtriton.bench.paper.fitre_training import CASES, DAMPINGS, RADII, RATES


def made(method: str, accuracy: float | None, **options: float) -> Row:
    same = {"network": "VGG", "init": "kaiming", "method": method, "final_accuracy": accuracy}
    return same | options


def test_a_smoke_run_has_all_cases() -> None:
    rows = ROBUSTNESS.measure(Setting("smoke", (0,)))
    counts = {case: sum(row.get("case") == case for row in rows) for case in CASES}
    assert counts == dict.fromkeys(CASES, 2)
    assert not any(isinstance(value, list) for row in rows for value in row.values())
    assert len(ROBUSTNESS.findings(rows)) == 2
    assert len(ROBUSTNESS.figure(rows).axes) == 4


def test_a_score_is_the_median_and_a_failure_counts_as_no_accuracy() -> None:
    rows = [made("SGD", value, rate=1.0) for value in (0.9, 0.5, 0.7)]
    rows += [made("SGD", 0.8, rate=2.0) | {"fault": "diverged"}, made("SGD", None, rate=3.0)]
    assert scores(rows, "SGD", ("rate",)) == {(1.0,): 0.7, (2.0,): 0.0, (3.0,): 0.0}


def test_points_are_good_near_the_best_and_neighbours_are_a_decade_away() -> None:
    found = {(1e-3, 1.0): 0.6, (1e-2, 1.0): 0.9, (1e-2, 10.0): 0.89, (1e-3, 10.0): 0.1}
    assert good(found, 0.9, 0.02) == 2
    assert decade_away(found) == pytest.approx(0.3)
    assert decade_away({(1.0,): 0.5}) == 0.0


@pytest.mark.parametrize(
    ("narrow", "verdicts"), [(True, ["agrees", "agrees"]), (False, ["agrees", "contradicts"])]
)
def test_verdicts_follow_the_shares(narrow: bool, verdicts: list[str]) -> None:
    rows = [
        made(f"FITRE {case}", 0.9, damping=damping, radius=radius)
        for case in CASES
        for damping in DAMPINGS
        for radius in RADII
    ]
    rows += [made("SGD", 0.9 if rate == 0.1 or not narrow else 0.5, rate=rate) for rate in RATES]
    assert [finding.verdict for finding in ROBUSTNESS.findings(rows)] == verdicts
