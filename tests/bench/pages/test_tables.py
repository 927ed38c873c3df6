"""Every table is made of the files that there are, and says where they come from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import newtriton as nt
from newtriton.bench.pages.blocks import made
from newtriton.bench.pages.counted import TABLES as COUNTED
from newtriton.bench.pages.results import FOLDER, Results
from newtriton.bench.pages.tables import TABLES
from newtriton.bench.pages.trained import TABLES as TRAINED

from ...sources import ROOT

FILES = Results(ROOT / FOLDER)


@pytest.mark.parametrize(
    "name", [*(set(COUNTED) - {"rows"}), "claims", *(set(TRAINED) - {"battery-of", "demo"})]
)
def test_a_table_has_rows_and_names_its_files(name: str) -> None:
    lines = made(name, FILES, TABLES)
    width = lines[0].count("|")
    assert width > 2 and all(line.count("|") == width for line in lines[:-2])
    assert len(lines) > 4
    assert lines[-1].startswith("*`") and "2026-" in lines[-1]


def test_rows_are_chosen_and_named() -> None:
    call = "rows(cpu-host, call, host_ms as ms on the host, launched=replayed)"
    lines = made(call, FILES, TABLES)
    assert lines[:3] == ["| call | ms on the host |", "|---|---|", "| hvp | 0.43 |"]
    assert len(lines) == 2 + 4 + 2


def test_the_column_of_an_optimizer_is_that_of_the_whole_table() -> None:
    whole = made("battery", FILES, TABLES)
    place = whole[0].split(" | ").index("K-FAC")
    ratios = [line.split(" | ")[1] for line in made("battery-of(kfac)", FILES, TABLES)[2:-2]]
    assert ratios == [line.split(" | ")[place] for line in whole[2 : 2 + len(ratios)]]


def test_a_table_that_there_is_not_is_refused() -> None:
    with pytest.raises(
        nt.NewtritonError, match="there is no table 'no': there are beside, ratios, front"
    ):
        made("no", FILES, TABLES)


def test_the_demonstration_has_a_table(tmp_path: Path) -> None:
    row = {
        "problem": "digits", "method": "FITRE", "epochs": 10, "loss": 7.25e-06,
        "validation_loss": 0.02, "accuracies": [0.99, 1.0], "seconds": 1.71,
        "epochs_to_goal": [1, None], "seconds_to_goal": [0.318, None],
    }  # fmt: skip
    other = row | {"problem": "curves", "accuracies": [0.0, 0.0], "validation_loss": 20.031}
    (tmp_path / "demo.json").write_text(json.dumps({"rows": [row, row, other]}))
    lines = made("demo", Results(tmp_path), TABLES)
    cells = "| FITRE, 10 epochs | 7.25e-06 | 99.50% | 0.32 (1), – | 1.7 |"
    assert lines[2:4] == [f"| digits {cells}", f"| {cells}"]
    assert "| 20.03 |" in lines[4]
