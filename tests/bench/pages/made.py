"""A clone with a file of results and a page, to try things on."""

from __future__ import annotations

import json
from pathlib import Path

from newtriton.bench.pages.results import Results

MACHINE = {"date": "2026-11-26", "device": "A chip, 1 threads", "torch": "2.13.0+cpu"}
ROWS = [
    {"net": "a", "call": "eager: hvp", "ms": 6.0, "seed": [1, 2], "of": {"x": 0.5, "told, y": 2}},
    {"net": "a", "call": "ours: hvp", "ms": 4.0, "seed": [3, 4], "of": {"x": 1.5, "told, y": 4}},
    {"net": "b", "call": "ours: hvp", "ms": 1250.0, "good": True},
]


def results(folder: Path) -> Results:
    """Files of results in a folder: `made`, and one inside another folder."""
    (folder / "papers").mkdir()
    held = {"machine": MACHINE, "rows": ROWS, "summary": [{"target": "x", "spills": 7}]}
    (folder / "made.json").write_text(json.dumps(held))
    (folder / "papers/other.json").write_text(json.dumps({"rows": [{"ms": 1e-7}]}))
    return Results(folder)
