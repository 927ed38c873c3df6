"""What is measured on a GPU is tried on a CPU, on small networks."""

from __future__ import annotations

import pytest
import torch

from newtriton.bench import second_order
from newtriton.bench.second_order import Network, attention, gpt
from newtriton.bench.sequences import on_gpu

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    nets: dict[str, Network] = {"words": gpt(1, 64, 8, 20, 2), "attention": attention(64, 8, 2)}
    monkeypatch.setattr(second_order, "NETS", nets)
    monkeypatch.setattr(on_gpu, "NETS", nets)
    monkeypatch.setattr(on_gpu, "ROUNDS", 1)


def test_programs_are_measured_beside_pytorchs() -> None:
    (rows,) = on_gpu.programs(("words", "ieee"), batch=3)(CPU)
    assert [(row["call"], row["batch"]) for row in rows] == [
        ("eager: gradient", 3), ("eager: hvp", 3), ("newtriton: gradient", 3),
        ("newtriton: gradient + quadratic form", 3), ("newtriton: gradient + hvp", 3),
    ]  # fmt: skip
    assert all("times_faster_than_best" in row for row in rows[2:])


def test_attentions_derivative_is_measured_and_held_against_float64() -> None:
    (rows,) = on_gpu.attention(("attention", "ieee"))(CPU)
    theirs, ours = rows[0], rows[-1]
    assert theirs["call"] == "torch.func.jvp: math attention" and theirs["error"] < 1e-5
    assert ours["call"].startswith("newtriton") and ours["median_ms"] > 0


def test_errors_are_ours_and_pytorchs() -> None:
    (rows,) = on_gpu.errors(("words", "ieee"))(CPU)
    assert [row["by"] for row in rows] == ["newtriton", "eager"]
    assert all(0 < row[what] < 1e-4 for row in rows for what in ("gradient", "hvp", "form"))


def test_every_step_names_what_there_is() -> None:
    assert {"first", "attention", "errors", "vocabulary", "compiled"} <= on_gpu.STEPS.keys()
