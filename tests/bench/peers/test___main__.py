"""The command keeps rows after each operation, goes on where it stopped, and checks numbers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import newtriton as nt
from newtriton.bench.peers import __main__ as command
from newtriton.bench.peers import growth, memory
from newtriton.bench.peers.measuring import Effort, Place
from newtriton.bench.peers.networks import Axis

from . import tiny

SIDES = ("newtriton", "reverse", "curvlinops", "backpack")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    tiny.add(monkeypatch)
    monkeypatch.setattr(command, "QUICK", Effort(5, 0.01, 3))
    monkeypatch.setattr(memory, "in_own_process", lambda call: 1_000_000)

    def main(*options: str) -> Path:
        path = tmp_path / "rows.json"
        arguments = ["--rounds", "5", "--seconds", "0.01", "--json", str(path), *options]
        monkeypatch.setattr(sys, "argv", ["peers", *arguments])
        command.main()
        return path

    return main


def read(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))["rows"]


def test_rows_are_printed_and_kept(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = run("--net", "tiny-mlp", "--what", "hvp", "kfac", "--providers", *SIDES)
    rows = read(path)
    speed = {(r["kernel_operation"], r["provider"]) for r in rows if r["metric_name"] == "speed"}
    assert speed == {
        ("hvp", "newtriton"), ("hvp", "eager, reverse over reverse"), ("hvp", "curvlinops"),
        ("hvp", "BackPACK"), ("kfac", "newtriton"), ("kfac", "curvlinops"), ("kfac", "BackPACK"),
    }  # fmt: skip
    held = {(r["kernel_operation"], r["provider"]) for r in rows if r["metric_name"] == "memory"}
    assert held == speed
    assert all(row["error"] < 1e-3 for row in rows if "error" in row)
    assert "tiny-mlp" in capsys.readouterr().out
    machine = json.loads(path.read_text(encoding="utf-8"))["machine"]
    assert {"BackPACK", "curvlinops"} <= machine["versions"].keys()


def test_what_is_there_is_not_measured_again(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ("--net", "tiny-mlp", "--providers", "newtriton", "--no-memory", "--what")
    first = read(run(*given, "gradient"))
    both = read(run(*given, "gradient", "form"))
    assert both[: len(first)] == first
    assert [row["kernel_operation"] for row in both] == ["gradient", "form"]
    path = run(*given, "gradient", "form")
    assert read(path) == both
    other = json.loads(path.read_text(encoding="utf-8"))
    other["machine"]["device"] = "another, 64 threads"
    path.write_text(json.dumps(other), encoding="utf-8")
    with pytest.raises(nt.NewtritonError, match="rows of another, 64 threads, here is"):
        run(*given, "gradient")


def test_growth_is_timed_and_counted(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    axis = Axis((2, 4), lambda n: tiny.NETS["tiny-mlp"])
    growing = {"growing-mlp": {"batch": axis}}
    monkeypatch.setattr(command, "GROWING", growing)
    monkeypatch.setattr("newtriton.bench.peers.networks.GROWING", growing)
    rows = read(run("--net", "growing-mlp", "--what", "form", "ekfac"))
    assert {row["kernel_operation"] for row in rows} == {"form"}
    assert {row["metric_name"] for row in rows} == {"speed", "flops", "bytes"}
    assert {row["provider"] for row in rows} == {
        "newtriton", "eager, reverse over reverse", "curvlinops"
    }  # fmt: skip
    assert {(row["x_name"], row["x_value"]) for row in rows} == {("batch", 2), ("batch", 4)}
    assert growth.exponents(rows)


def test_quick_measures_the_small_ones_without_memory(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "SMALL", {"tiny-mlp": tiny.NETS["tiny-mlp"]})
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    rows = read(run("--quick", "--what", "gradient", "inverse"))
    assert {row["metric_name"] for row in rows} == {"speed"}
    assert {row["kernel_name"] for row in rows} == {"tiny-mlp"}
    assert "torch.compile" not in {row["provider"] for row in rows}


def test_sides_that_compute_other_numbers_are_an_error(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("newtriton.bench.peers.measuring.AGREE_ELSE", -1.0)
    monkeypatch.setattr(command, "SMALL", {"tiny-mlp": tiny.NETS["tiny-mlp"]})
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    given = ("--quick", "--what", "gradient", "--providers")
    with pytest.raises(nt.NewtritonError, match="eager, reverse over reverse at gradient"):
        run(*given, "newtriton", "reverse")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--net", "vgg12"), "the network 'vgg12' is not there: take some of mlp"),
        (("--what", "hessian"), "the operation 'hessian' is not there"),
        (("--providers", "theirs"), "the side 'theirs' is not there"),
    ],
)
def test_unknown_names_are_told(run: Any, option: tuple[str, str], message: str) -> None:
    with pytest.raises(nt.NewtritonError, match=message):
        run(*option)


def test_what_is_missing_is_looked_up_by_place() -> None:
    row = Place("mlp", "batch", 64).refused("hvp", "a", "no")
    assert command.missing([row], Place("mlp", "batch", 64), ["hvp", "form"], "speed") == ["form"]
    assert command.missing([row], Place("mlp", "batch", 32), ["hvp"], "speed") == ["hvp"]
    assert command.missing([row], Place("mlp", "batch", 64), ["hvp"], "memory") == ["hvp"]


def test_the_page_is_written_of_the_rows(run: Any, tmp_path: Path) -> None:
    run("--net", "tiny-mlp", "--what", "gradient", "--providers", "newtriton", "--no-memory")
    run("--page", str(tmp_path / "page.md"))
    assert (tmp_path / "page.md").read_text(encoding="utf-8").startswith("# Beside the peers")
