"""The page is what the rows make, and says who is slower and who refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import newtriton as nt
from newtriton.bench.peers import page, reasons
from newtriton.bench.peers.measuring import Place
from tests.sources import ROOT

MACHINE = {
    "date": "2026-01-02", "device": "A chip, 2 threads", "torch": "2.13.0",
    "versions": {"curvlinops": "3.0.1"},
}  # fmt: skip
PLACE, GROWS = Place("mlp", "batch", 128), Place("growing-mlp", "batch", 1)


def timed(operation: str, provider: str, ms: float, place: Place = PLACE, **more: Any) -> Any:
    times = {"y_value_20": ms - 0.1, "y_value_50": ms, "y_value_80": ms + 0.2}
    row = place.row(operation, provider, "speed", "ms")
    return {**row, **times, "per_gradient": ms / 2, "rounds": 9, **more}


def held(operation: str, provider: str, mb: float) -> Any:
    return {**PLACE.row(operation, provider, "memory", "MB"), "y_value_50": mb}


ROWS = [
    timed("gradient", "newtriton", 2.5),
    timed("gradient", "eager, reverse over reverse", 2.0, error=1e-7),
    timed("hvp", "newtriton", 4.0),
    timed("hvp", "curvlinops", 9.0, error=1e-7),
    timed("hvp", "eager, reverse over reverse", 6.0, error=1e-7),
    PLACE.refused("hvp", "torch.compile", "Unsupported: this."),
    PLACE.refused("ggnvp", "torch.compile", "Unsupported: this."),
    PLACE.refused("hvp", "kfac-jax", "is not installed: No module named 'jax'"),
    timed("kfac", "newtriton", 5.0),
    timed("kfac", "BackPACK", 3.0, error=0.9, differs="apart"),
    timed("step", "newtriton, K-FAC", 12.0, y_value_mean=14.0),
    timed("step", "torch.optim, SGD", 2.2, y_value_mean=2.3, error=0.0),
    held("hvp", "newtriton", 7.5),
    held("hvp", "eager, reverse over reverse", 9.25),
    *(timed("hvp", "newtriton", 3.0 * x, Place("growing-mlp", "batch", x)) for x in (1, 2, 4)),
]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(reasons, "REASONS", {("mlp", "gradient"): "It walks the graph."})
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"machine": MACHINE, "rows": ROWS}), encoding="utf-8")
    page.write(path, tmp_path / "deep" / "page.md")
    return (tmp_path / "deep" / "page.md").read_text(encoding="utf-8")


def test_the_page_says_where_it_comes_from(made: str) -> None:
    assert "A chip, 2 threads; PyTorch 2.13.0, curvlinops 3.0.1; 2026-01-02." in made
    assert "`bench/results/rows.json`" in made


def test_an_operation_stands_beside_its_fastest_peer(made: str) -> None:
    (line,) = (line for line in made.splitlines() if line.startswith("| `hvp` | 4.0"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == [
        "`hvp`", "4.0 ms [3.9–4.2]", "2.0",
        "eager, reverse over reverse: 6.0 ms [5.9–6.2]", "1.50×", "curvlinops 9.0 ms",
        "7.5 MB, theirs 9.2 MB",
    ]  # fmt: skip


def test_where_ours_is_slower_it_says_so_and_why(made: str) -> None:
    assert (
        "- `gradient` takes 1.25 times as long as eager, reverse over reverse. It walks the graph."
        in made
    )
    assert "`kfac` takes" not in made  # BackPACK computes something else
    assert "- BackPACK, `kfac`: apart (relative error 9e-01)." in made


def test_refusals_with_one_reason_stand_together(made: str) -> None:
    assert "- torch.compile, `hvp`, `ggnvp`: Unsupported: this." in made
    assert made.count("No module named 'jax'") == 1


def test_steps_are_ranked_by_their_mean(made: str) -> None:
    lines = made.splitlines()
    sgd, kfac = (
        next(i for i, line in enumerate(lines) if line.startswith(f"| {who}"))
        for who in ("torch.optim, SGD", "newtriton, K-FAC")
    )
    assert sgd < kfac
    assert "| newtriton, K-FAC | 14.0 ms | 12.0 ms" in lines[kfac]


def test_growth_is_a_table_of_exponents(made: str) -> None:
    assert "| `hvp` | newtriton | time | 1.00 ± 0.00 |" in made


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(nt.NewtritonError, match="is not there: measure with --json"):
        page.write(tmp_path / "none.json", tmp_path / "page.md")


@pytest.mark.skipif(not (ROOT / page.RESULTS).exists(), reason="there are no rows yet")
def test_the_page_is_that_of_the_rows() -> None:
    assert (ROOT / page.PAGE).read_text(encoding="utf-8") == page.text(ROOT / page.RESULTS)
