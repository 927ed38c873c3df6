"""What a run of an experiment leaves: its rows as a file, its picture, and its findings as text."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...compiler.graph.errors import NewtritonError
from ...runtime.disk import read_json
from .._measure import known_rows, machine
from .experiment import Experiment, Finding, Row, Setting

VERDICTS = {"agrees": "agrees", "contradicts": "contradicts", "open": "cannot be told"}


@dataclass(frozen=True)
class Result:
    """The rows of a run, and where they come from.

    Attributes:
        origin: device, versions, date, size, seeds, and seconds of the whole run.
        rows: the rows.
    """

    origin: dict[str, Any]
    rows: list[Row]

    def save(self, path: Path) -> None:
        """Writes a JSON file with a line for each row."""
        lines = ",\n".join(f"  {json.dumps(row)}" for row in self.rows)
        text = f'{{"machine": {json.dumps(self.origin)},\n "rows": [\n{lines}\n ]}}\n'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Result:
        """Reads what `save` wrote.

        Raises:
            NewtritonError: the file is another one.
        """
        rows, found = known_rows(path), read_json(path)
        if not isinstance(found.get("machine"), dict):
            raise NewtritonError(f"{path} holds no rows of an experiment: they have no machine")
        return cls(found["machine"], rows)


def run(experiment: Experiment, setting: Setting) -> Result:
    """Runs an experiment."""
    start = time.perf_counter()
    rows = [rounded(row) for row in experiment.measure(setting)]
    seconds = round(time.perf_counter() - start)
    origin = {"size": setting.size, "seeds": list(setting.seeds), "seconds": seconds}
    return Result(machine() | origin, rows)


def rounded(value: Any) -> Any:
    """Returns what a file has: numbers in five digits, and no number where there is none.

    What is not finite is None, which JSON has a word for.
    """
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(part) for part in value]
    if isinstance(value, float):
        return float(f"{value:.5g}") if abs(value) < float("inf") else None
    return value


def paragraphs(experiment: Experiment, result: Result) -> Iterator[str]:
    """Yields the findings as paragraphs of Markdown, and where the rows come from."""
    for finding in experiment.findings(result.rows):
        yield described(finding)
    origin = result.origin
    data = ", ".join(dict.fromkeys(row["data"] for row in result.rows if "data" in row))
    seeds = len(origin["seeds"])
    yield (
        f"*{origin['size']} size, {seeds} seed{'s' * (seeds > 1)}{f', {data}' * bool(data)}: "
        f"{origin['seconds']} s on {origin['device']}, PyTorch {origin['torch']}, "
        f"{origin['date']}.*"
    )


def described(finding: Finding) -> str:
    """Returns a finding as a paragraph of Markdown."""
    return (
        f"The paper: {finding.paper} Here: {finding.ours} "
        f"**{VERDICTS[finding.verdict].capitalize()}**: {finding.why}"
    )
