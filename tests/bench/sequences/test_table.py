"""Rows of what is counted: of the same calls, on every backend, beside eager PyTorch."""

from __future__ import annotations

import pytest

from newtriton.bench.second_order import gpt
from newtriton.bench.sequences import table


def small(positions: int):
    return gpt(1, 64, positions, 60, batch=4)


def test_every_call_is_counted_on_every_backend_beside_pytorch() -> None:
    found = table.counted("gpt", small(16))
    rows = {(row["by"], row["call"]): row for row in found}
    assert len(found) == len(rows) == 2 + 3 * (2 + len(table.PRECISIONS))
    gradient, form, hvp = (rows["ieee", call] for call in table.RIVALS)
    assert 0 < gradient["launches"] < form["launches"] < hvp["launches"]
    assert gradient["MB_moved"] < form["MB_moved"] < hvp["MB_moved"]
    assert gradient["peak_MB"] < form["peak_MB"]
    assert hvp["peak_MB"] > rows["one by one", "gradient"]["peak_MB"] / 2
    assert "launches" not in rows["aten", "gradient"] and rows["aten", "gradient"]["peak_MB"] > 0
    of_eager = hvp["MB_moved"] / rows["eager", "hvp"]["MB_moved"]
    assert hvp["MB_moved_of_eager"] == pytest.approx(of_eager, abs=0.001)
    assert hvp["MB_moved"] < rows["one by one", "gradient + hvp"]["MB_moved"]


def test_the_power_by_which_memory_grows() -> None:
    found = [
        {"net": "gpt", "by": "eager", "call": call, "positions": t, "peak_MB": 3.0 * t**power}
        for call, power in (("gradient", 1), ("hvp", 2))
        for t in (16, 32, 64)
    ]
    assert [row["growth_of_peak"] for row in table.exponents(found)] == [1.0, 2.0]


def test_rows_at_several_lengths_end_with_how_they_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    def counted(name: str, network: int) -> table.Rows:
        return [{"net": name, "by": "eager", "call": "hvp", "peak_MB": 5.0 * network}]

    monkeypatch.setattr(table, "counted", counted)
    *rows, growth = table.growing(lambda positions: positions, (8, 16))  # type: ignore[arg-type]
    assert [row["positions"] for row in rows] == [8, 16]
    assert growth == {"net": "gpt", "by": "eager", "call": "hvp", "growth_of_peak": 1.0}
