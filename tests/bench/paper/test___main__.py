"""`newtriton bench paper`: lists experiments, runs one, and writes the pages of the papers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import newtriton as nt
from newtriton.bench.paper import __main__ as command
from newtriton.bench.paper import pages, papers
from newtriton.bench.protocol.experiment import Experiment, Finding, Paper, Row, Setting
from newtriton.bench.protocol.figures import curves, panels
from newtriton.bench.protocol.results import Result


def measure(setting: Setting) -> list[Row]:
    size = setting.of(smoke=1, default=2, full=3)
    return [
        {"data": "digits", "method": "A", "seed": seed, "epoch": [0, 1], "loss": [size, 1 / 3]}
        for seed in setting.seeds
    ]


def figure(rows: list[Row]) -> object:
    made, axes = panels(1, 1)
    curves(axes[0, 0], rows, "epoch", "loss")
    return made


def findings(rows: list[Row]) -> list[Finding]:
    ours = f"{len(rows)} rows, the last loss {rows[-1]['loss'][-1]}."
    return [Finding("0.25 (Table 1).", ours, "contradicts", "it is another function.")]


MADE = Experiment("How low is it?", "Table 1", measure, figure, findings)  # pyright: ignore


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "EXPERIMENTS", {"made": MADE})
    some = {"some": Paper("Somebody (2020). Something.", {"made": MADE, "other": MADE})}
    monkeypatch.setattr(command, "PAPERS", some)
    monkeypatch.setattr(pages, "PAPERS", some)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["newtriton bench paper", *arguments])
    command.main()


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize("arguments", [(), ("--list",), ("made", "--list")])
def test_experiments_are_listed(arguments, monkeypatch, capsys) -> None:
    run(monkeypatch, *arguments)
    assert "made   How low is it? (Table 1)" in capsys.readouterr().out.replace("  made", "made ")


@pytest.mark.usefixtures("made")
def test_the_list_says_what_files_say_that_experiments_took(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    run(monkeypatch, "--list")
    without = capsys.readouterr().out
    assert "size" not in without and "Times" not in without
    *without, where = without.splitlines()
    assert where.endswith("bench/results/papers of newtriton's sources: list them there.")
    for ending, size, seconds in [("", "default", 845), ("-smoke", "smoke", 7)]:
        origin = {"size": size, "seconds": seconds, "seeds": [0, 1], "device": "a machine"}
        Result(origin, []).save(command.RESULTS / f"made{ending}.json")
    run(monkeypatch, "--list")
    title, made, *rest, times = capsys.readouterr().out.splitlines()
    added = ": 14 min at default size, 7 s at smoke size"
    assert made.endswith(added)
    assert [title, made.removesuffix(added), *rest] == without
    assert times == "Times are those of bench/results/papers: a machine, 2 seeds."


@pytest.mark.usefixtures("made")
def test_an_experiment_leaves_rows_a_picture_and_its_findings(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    run(monkeypatch, "made", "--smoke", "--seeds", "2", "--output", str(tmp_path))
    saved = json.loads((tmp_path / "made.json").read_text())
    assert [row["seed"] for row in saved["rows"]] == [0, 1]
    assert saved["rows"][0]["loss"] == [1, 0.33333]
    assert saved["machine"]["size"] == "smoke"
    assert (tmp_path / "made.png").stat().st_size > 1000
    text = (tmp_path / "made.md").read_text()
    assert "2 rows, the last loss 0.33333. **Contradicts**: it is another function." in text
    assert "*smoke size, 2 seeds, digits: " in text
    assert text.strip() in capsys.readouterr().out


@pytest.mark.usefixtures("made")
def test_what_cannot_be_run_is_refused(monkeypatch) -> None:
    with pytest.raises(nt.NewtritonError, match="no experiment 'maid': there are made"):
        run(monkeypatch, "maid")
    with pytest.raises(nt.NewtritonError, match="--seeds"):
        run(monkeypatch, "made", "--seeds", "0")


@pytest.mark.usefixtures("made")
def test_pages_are_made_of_the_rows(tmp_path: Path, monkeypatch) -> None:
    run(monkeypatch, "made", "--smoke", "--output", str(tmp_path / "rows"))
    monkeypatch.setattr(command, "RESULTS", tmp_path / "rows")
    run(monkeypatch, "--pages", str(tmp_path))
    page = (tmp_path / "some.md").read_text()
    assert page.startswith("# Somebody (2020). Something.\n")
    assert "![made](made.png)\n\nThe paper: 0.25 (Table 1). Here: 3 rows" in page
    assert page.endswith("## `other`\n\nHow low is it? (Table 1)\n\nNot run yet.\n")


def test_names_are_used_once() -> None:
    assert len(papers.EXPERIMENTS) == sum(len(p.experiments) for p in papers.PAPERS.values())


def test_the_pages_are_those_of_the_rows(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    pages.write(root / "bench/results/papers", tmp_path)
    for name in papers.PAPERS:
        kept = root / f"docs/papers/{name}.md"
        assert kept.read_text() == (tmp_path / f"{name}.md").read_text(), name
