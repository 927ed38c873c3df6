"""Memory is measured in new processes, and a process that fails is a row with its reason."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import newtriton as nt
from newtriton.bench.peers import memory
from newtriton.bench.peers.measuring import Place

PLACE = Place("small-mlp", "batch", 64)
GRADIENT = "reverse", "eager, reverse over reverse", "gradient"


def raising() -> None:
    raise ValueError("too\nlarge")


def test_a_call_is_made_in_a_process_of_its_own() -> None:
    assert memory.in_own_process(os.getpid) != os.getpid()
    with pytest.raises(nt.NewtritonError, match=r"^ValueError: too$"):
        memory.in_own_process(raising)
    with pytest.raises(nt.NewtritonError, match="ended with code 3"):
        memory.in_own_process(partial(os._exit, 3))
    assert memory.in_own_process(partial(memory.peak, "small-mlp", 64, "cpu", GRADIENT)) >= 0


def test_a_call_that_is_not_there_is_told() -> None:
    with pytest.raises(nt.NewtritonError, match="nobody has no call for 'hvp' here"):
        memory.peak("small-mlp", 8, "cpu", ("reverse", "nobody", "hvp"))


def test_rows_stand_beside_the_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(call: Callable[[], Any]) -> int:
        task = call.args[-1]  # type: ignore[attr-defined]
        if task[2] == "kfac":
            raise nt.NewtritonError("it is too large")
        return {"gradient": 2_000_000, "hvp": 5_000_000}[task[2]]

    monkeypatch.setattr(memory, "in_own_process", measured)
    tasks = [("newtriton", "newtriton", "hvp"), ("curvlinops", "curvlinops", "kfac")]
    hvp, kfac = memory.rows("small-mlp", 64, "cpu", PLACE, tasks)
    assert (hvp["y_value_50"], hvp["per_gradient"], hvp["metric_unit"]) == (5.0, 2.5, "MB")
    assert (kfac["refused"], kfac["metric_name"]) == ("it is too large", "memory")
