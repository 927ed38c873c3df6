"""Scores: the best of a grid, ratios to Adam's runs of the same seed, and what a table shows."""

from __future__ import annotations

import math
from typing import Any

import pytest

from newtriton.bench import _scores


def row(optimizer: str, setting: str, seed: int, **measured: Any) -> dict[str, Any]:
    return {
        "problem": "p", "optimizer": optimizer, "setting": setting, "seed": seed, "start": 9.0,
        **measured,
    }  # fmt: skip


ADAM = [
    row("adam", "lr=1", 0, end=0.1, fault="x"),
    row("adam", "lr=1", 1, end=0.1),
    row("adam", "lr=2", 1, end=2.0, updates=10, least_validation=4.0),
    row("adam", "lr=2", 0, end=1.0, updates=10, least_validation=4.0),
    row("adam", "lr=3", 0, end=1.5),
    row("adam", "lr=3", 1, end=1.6),
]
OTHER = [
    row(
        "fitre", "defaults", 0,
        end=0.5, least_validation=2.0, goal_updates=2, goal_seconds=1.0, adam_seconds=4.0,
    ),
    row("fitre", "defaults", 1, end=6.0, least_validation=3.0, adam_seconds=4.0, fault="above"),
    row("kfra", "defaults", 0, refused="no chain"),
    row("kfra", "defaults", 1, refused="no chain"),
    row("sgd", "lr=1", 0, fault="not finite"),
]  # fmt: skip
ROWS = ADAM + OTHER


def test_of_a_grid_the_lowest_mean_counts_and_a_fault_is_infinite() -> None:
    chosen = _scores.best(ROWS, "p", "adam")
    assert [(run["setting"], run["seed"]) for run in chosen] == [("lr=2", 0), ("lr=2", 1)]
    assert _scores.best(ROWS, "q", "adam") == []


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        ("loss", [0.5, 3.0]),
        ("validation", [0.5, 0.75]),
        ("seconds", [0.25, math.inf]),
        ("updates", [0.2, math.inf]),
    ],
)
def test_ratios_are_to_adam_of_the_same_seed(of: str, expected: list[float]) -> None:
    assert _scores.ratios(ROWS, "p", "fitre", of) == expected


def test_losses_that_are_rounding_are_equal() -> None:
    low, zero, far = (row("adam", "lr=1", 0, end=end) for end in (1e-9, 0.0, 9e-6))
    assert _scores.losses(low, zero) == _scores.losses(zero, low) == 1.0
    assert _scores.losses(far, zero) == pytest.approx(10.0)


def test_who_does_not_take_the_network_has_no_ratio() -> None:
    assert _scores.ratios(ROWS, "p", "kfra", "loss") == []
    assert _scores.cell(ROWS, "p", "kfra", "loss") == "–"


def test_a_table_has_a_line_for_each_problem_and_each_count() -> None:
    titles = {"fitre": "FITRE", "kfra": "KFRA", "sgd": "SGD"}
    lines = list(_scores.table(ROWS, {"p": "small"}, titles))
    assert lines[0] == "| | best Adam | FITRE | KFRA | SGD |"
    assert lines[2] == "| p: small | 1.5, lr=2 | 1.8 (3) † | – | ∞ † |"
    assert [line.split("|")[3].strip() for line in lines[3:]] == [
        "0 of 1", "0 of 1", "1 of 1", "0 of 1", "1 of 2"
    ]  # fmt: skip


def test_what_is_grouped_is_ungrouped_again() -> None:
    groups = list(_scores.grouped(ROWS))
    assert len(groups) == 6 and groups[0]["fault"] == ["x", None]
    again = list(_scores.ungrouped(groups))
    by_seed = sorted(ROWS, key=lambda r: (r["optimizer"], r["setting"], r["seed"]))
    assert sorted(again, key=lambda r: (r["optimizer"], r["setting"], r["seed"])) == by_seed
