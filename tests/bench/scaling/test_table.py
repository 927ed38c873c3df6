"""The tables of the page are those of the rows, and the rows are the model's."""

from __future__ import annotations

import json
import re
from typing import Any

from newtriton.bench.scaling import measure, networks, table

from ...sources import ROOT

PAGE = (ROOT / "docs/distributed.md").read_text(encoding="utf-8")


def rows(name: str) -> list[dict[str, Any]]:
    return json.loads((ROOT / f"bench/results/{name}.json").read_text())["rows"]


def counts(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in found if "counts" in row]


def test_the_page_has_the_predicted_table() -> None:
    found = rows("scaling")
    predicted = [row for row in found if "ms" in row]
    assert table.predicted(counts(found)) == predicted
    assert [row["network"] for row in counts(found)] == [*networks.TASKS]
    assert "\n".join(table.prediction(predicted)) in PAGE


def test_what_is_counted_of_a_network_is_what_its_graphs_say(monkeypatch: Any) -> None:
    monkeypatch.setattr(table, "TASKS", {"VGG19": networks.TASKS["VGG19"]})
    assert json.loads(json.dumps(table.networks())) == counts(rows("scaling"))[:1]


def test_the_page_has_the_measured_tables() -> None:
    found = rows("cpu-scaling")
    counted = [row for row in found if "counted" in row]
    assert all(row["counted"] == row["model"] for row in counted)
    assert {row["ranks"] for row in counted} == {1, 2, 4}
    assert "\n".join(table.checked(counted)) in PAGE
    assert "\n".join(table.timed(found)) in PAGE


def test_steps_are_told_apart() -> None:
    made = [(0, 1), (1, 0), (2, 0), (3, 2), (measure.EVERY, 1)]
    steps = [
        {"memory": "owned", "step": i, "ranks": k, "factorised": n, "worked": 1.0 / k, "seconds": k}
        for i, n in made
        for k in (1, 2)
    ]
    work = dict.fromkeys((*table.PARTS, "factors", "factorise"), 0.2)
    last = {"memory": "owned", "work": work, "call": 0.0, "byte": 0.0}
    lines = [*table.timed([*steps, last])]
    assert lines[2].startswith("| owned | a step | 1 | 1.00 | 1.00 | 1.00 |")
    assert lines[4].startswith("| owned | a step with a refresh | 1 | 1.40 | 1.00 | 1.00 |")
    assert lines[6].endswith("| 2.00× | 0.50× |")


def test_the_tutorials_lines_run() -> None:
    """The page's example of a prediction, as it stands there."""
    (code,) = re.findall(r"```python\n([^`]*newtriton\.bench\.scaling.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    assert 0.0 < names["found"].share < 1.0
