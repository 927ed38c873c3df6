"""Our calls stand beside the fastest of the others that do the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import newtriton as nt
from newtriton.bench.pages.beside import beside, ratios
from newtriton.bench.pages.results import Results


def row(call: str, ms: float, **more: object) -> dict[str, object]:
    return {"net": "gpt", "batch": 16, "call": call, "median_ms": ms, **more}


ROWS = [
    row("eager: gradient", 40.0, run=1, peak_MB=1500),
    row("eager, channels last: gradient", 30.0, run=1, peak_MB=1000),
    row("compiled: hvp, forward over reverse", 50.0, run=1),
    row("newtriton: gradient", 20.0, run=1, peak_MB=500),
    row("newtriton: gradient + quadratic form", 100.0, run=1),
    row("newtriton: gradient", 33.0, run=2),
]


def test_the_fastest_counts_and_a_loss_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"rows": ROWS}))
    lines = [*beside(Results(tmp_path), "x@1")]
    assert lines[0].startswith("| network | | newtriton | eager PyTorch | `torch.compile` | peak")
    assert (
        lines[2]
        == "| GPT, batch 16 | gradient | 20.0 ms | 30.0 ms, 1.50× | | 1,000 MB and 500 MB |"
    )
    assert lines[3].startswith("| | gradient and vᵀHv") and "50.0 ms, **0.50×**" in lines[3]
    assert len(lines) == 4


def test_of_several_runs_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"rows": ROWS}))
    with pytest.raises(nt.NewtritonError, match="GPT, batch 16 has gradient 2 times: name a run"):
        list(beside(Results(tmp_path), "x"))


def test_ratios_are_to_the_fastest_of_all(tmp_path: Path) -> None:
    rows = [*ROWS[:5], row("compiled: gradient", 10.0)]
    found = {"machine": {"gpu": "NVIDIA H200"}, "rows": rows}
    (tmp_path / "x.json").write_text(json.dumps(found))
    assert [*ratios(Results(tmp_path), "x")] == [
        "| | GPT, batch 16, on an H200 |",
        "|---|---|",
        "| gradient | **0.50×** |",
        "| gradient and vᵀHv (theirs: Hv) | **0.50×** |",
    ]


def test_a_run_and_a_network_are_named(tmp_path: Path) -> None:
    other = row("newtriton: gradient", 9.0, run=1) | {"net": "vit"}
    (tmp_path / "x.json").write_text(json.dumps({"rows": [*ROWS, other]}))
    lines = [*beside(Results(tmp_path), "x@1:vit")]
    assert lines[2:] == ["| ViT, batch 16 | gradient | 9.0 ms |"]
    with pytest.raises(nt.NewtritonError, match="is no FILE, FILE@RUN"):
        list(beside(Results(tmp_path), "x:"))
