"""The comparison with kfac-jax, as far as it goes without jax."""

from __future__ import annotations

import sys

import pytest
import torch

import newtriton as nt
from newtriton.bench.kfac_jax import __main__ as command
from newtriton.bench.kfac_jax.__main__ import Task, compare, ours

TASK = Task(nt.curves(40).x[:, :50].contiguous(), (6, 3), 20, (0.01,))


def test_a_run_ends_where_the_goal_is_reached() -> None:
    whole = ours(TASK, nt.KFAC, 10, 0)
    assert whole["updates"] == 10
    assert whole["loss"] < ours(TASK, nt.KFAC, 1, 0)["loss"]
    assert ours(TASK, nt.KFAC, 10, 0, whole["loss"] + 1e6)["updates"] == 5


def test_weights_and_batches_are_those_of_the_seed() -> None:
    assert torch.equal(TASK.model(1).params, TASK.model(1).params)
    assert not torch.equal(TASK.model(1).params, TASK.model(2).params)
    assert torch.equal(next(TASK.batches(1)), next(TASK.batches(1)))


def test_without_kfac_jax_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kfac_jax", None)
    with pytest.raises(nt.NewtritonError, match=r"needs kfac-jax .*: pip install kfac-jax"):
        compare(TASK, 1, [1.0], 0, lambda row: None)


def test_rows_stand_beside_the_goal(monkeypatch: pytest.MonkeyPatch) -> None:
    def theirs(task: Task, damping: float, *run: object) -> dict[str, object]:
        return {"updates": 5, "median_ms": 1.0, "loss": damping}

    rows: list[dict[str, object]] = []
    monkeypatch.setattr(command, "installed", lambda: None)
    monkeypatch.setattr(command, "theirs", theirs)
    compare(TASK, 10, [1.0, 1e9], 0, rows.append)
    adam, *others = rows
    assert {row["goal"] for row in others} == {adam["loss"]}
    assert [row["method"] for row in others[-2:]] == [
        "kfac-jax, damping 1", "kfac-jax, damping 1e+09",
    ]  # fmt: skip
    assert [row["reached"] for row in others[-2:]] == [True, False]
