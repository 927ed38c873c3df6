"""The soak goes on where it stopped, and a trial that crashes or hangs is an outcome."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from . import soak
from .sources import ROOT

HERE = __name__


def trial(seed: int, folder: Path) -> str:
    """A trial as parts have them, of which some go wrong."""
    assert not list(folder.iterdir())
    match seed % 10**6:
        case 1:
            raise ValueError("as injected")
        case 3:
            os._exit(9)
        case 5:
            time.sleep(60)
    return f"of seed {seed // 10**6}"


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    monkeypatch.setattr(soak, "PARTS", {"own": soak.Part(HERE, 7, "nothing")})
    monkeypatch.setattr(soak, "AT_ONCE", 2)
    return {"own": 7}


def test_every_trial_has_an_outcome_and_a_fault_its_reason(
    tmp_path: Path, parts: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak, "SLOWEST", 5.0)
    record = soak.Record(tmp_path / "soak.json", 3)
    soak.soak(record, parts, 1.0, 2)
    assert record.outcomes["own"] == {
        "0": "of seed 3", "1": "broken", "2": "of seed 3", "3": "crashed",
        "4": "of seed 3", "5": "hung", "6": "of seed 3",
    }  # fmt: skip
    assert record.faults["own/1"] == "ValueError: as injected"
    assert record.faults["own/3"].startswith("status 9")
    assert record.summary()["own"]["outcomes"] == {
        "of seed 3": 4, "broken": 1, "crashed": 1, "hung": 1,
    }  # fmt: skip


def test_what_the_record_has_is_not_tried_again(tmp_path: Path, parts: dict[str, int]) -> None:
    record = soak.Record(tmp_path / "soak.json", 0)
    record.add("own", [[0, "kept", ""], [1, "kept", ""], [2, "kept", ""]], 1.0)
    again = soak.Record(tmp_path / "soak.json", 0)
    assert list(again.left(parts)) == [
        ("own", range(3, 4)),
        ("own", range(4, 6)),
        ("own", range(6, 7)),
    ]
    with pytest.raises(SystemExit, match="is of seed 0"):
        soak.Record(tmp_path / "soak.json", 1)


def test_nothing_is_begun_when_the_time_is_over(tmp_path: Path, parts: dict[str, int]) -> None:
    record = soak.Record(tmp_path / "soak.json", 0)
    soak.soak(record, parts, 0.0, 1)
    assert not record.outcomes


def test_the_page_on_reliability_has_what_the_last_soak_came_to() -> None:
    """No part is left out, and no trial broke a promise, crashed or hung."""
    parts = json.loads((ROOT / "bench/results/soak.json").read_text())["parts"]
    expected = {name: part.trials for name, part in soak.PARTS.items()}
    assert {name: part["trials"] for name, part in parts.items()} == expected
    outcomes = {outcome for part in parts.values() for outcome in part["outcomes"]}
    assert outcomes.isdisjoint(soak.FAULTS)
    assert soak.table(parts) in (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
