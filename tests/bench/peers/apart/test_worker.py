"""The process that has JAX says what it lacks, and what fails."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from newtriton.bench.peers import with_jax
from newtriton.bench.peers.problem import Problem
from newtriton.bench.peers.sides import clause


def test_what_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("jax", "kfac_jax"):  # before any that is installed
        (tmp_path / f"{name}.py").write_text(f"raise ModuleNotFoundError('No module named {name}')")
    monkeypatch.setenv(with_jax.PYTHON, sys.executable)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    worker = with_jax.Worker()
    try:
        with pytest.raises(RuntimeError, match="no attribute 'nothing'"):
            worker.ask("nothing", None)
        with pytest.raises(ModuleNotFoundError) as raised:
            worker.ask("take", with_jax.message(Problem.of("small-mlp", 2)))
        assert clause(raised.value) == "is not installed: No module named jax"
    finally:
        worker.end()
    with pytest.raises(RuntimeError, match="its process has ended"):
        worker.ask("take", None)
