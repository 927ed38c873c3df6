"""The table at the front door hides nothing: what falls behind is in it, in bold, further down."""

from __future__ import annotations

from newtriton.bench.pages.front import QUESTIONS, front
from newtriton.bench.pages.results import FOLDER, Results

from ...sources import ROOT


def test_rows_stand_in_the_order_of_their_ratios_and_what_is_behind_is_bold() -> None:
    lines = [*front(Results(ROOT / FOLDER))]
    cells = [line.strip("| ").split(" | ") for line in lines[2 : 2 + len(QUESTIONS)]]
    ratios = [float(row[-1].strip("*×")) for row in cells]
    assert ratios == sorted(ratios, reverse=True)
    assert [row[-1].startswith("**") for row in cells] == [ratio < 1 for ratio in ratios]


def test_the_end_is_what_training_comes_to() -> None:
    lines = [*front(Results(ROOT / FOLDER))][2 + len(QUESTIONS) :]
    assert [line.split(",")[0] for line in lines] == ["| 27 small problems"] * 2
    assert all(line.count(" of 27") == 2 for line in lines)
