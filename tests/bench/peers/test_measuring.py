"""Rows: quantiles, ratios to a gradient, refusals; numbers that differ are not timed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from newtriton.bench._measure import Elapsed
from newtriton.bench.peers import measuring
from newtriton.bench.peers.measuring import LEAST, Effort, Place, quantiles, speed
from newtriton.bench.peers.problem import Call, Problem

PLACE = Place("small-mlp", "batch", 64)
FIRST = (
    "kernel_name", "kernel_operation", "provider", "metric_name", "metric_unit", "x_name",
    "x_value",
)  # fmt: skip
UNIT = Call("eager", "gradient", lambda: Elapsed(0.002), dict)


def call(
    provider: str, value: float, seconds: float = 0.004, operation: str = "hvp", **more: Any
) -> Call:
    def numbers() -> dict[str, torch.Tensor]:
        return {"x": torch.tensor([value])}

    run: Callable[[], Any] = lambda: Elapsed(seconds)  # noqa: E731
    return Call(provider, operation, run, numbers, **more)


def rows(*calls: Call, effort: Effort | None = None) -> list[dict[str, Any]]:
    problem = Problem.of("small-mlp")
    return [*speed(problem, PLACE, calls, UNIT, effort or Effort(7, 10.0, 4))]


def test_quantiles_are_milliseconds() -> None:
    found = quantiles([i / 1000 for i in range(1, 12)])
    assert found == {
        "y_value_20": 3.0, "y_value_50": 6.0, "y_value_80": 9.0, "rounds": 11
    }  # fmt: skip


def test_a_row_has_ligers_columns_and_the_ratio_to_a_gradient() -> None:
    mine, theirs = rows(call("newtriton", 1.0), call("peer", 1.0 + 1e-5, 0.006))
    assert tuple(mine)[:7] == FIRST
    assert [mine[name] for name in FIRST[:4]] == ["small-mlp", "hvp", "newtriton", "speed"]
    assert (mine["y_value_50"], mine["per_gradient"], mine["rounds"]) == (4.0, 2.0, 7)
    assert "error" not in mine
    assert (theirs["per_gradient"], theirs["error"]) == (3.0, 1e-5)


def test_rounds_keep_to_the_seconds_but_five_are_made() -> None:
    (row,) = rows(call("newtriton", 1.0, 1.0), effort=Effort(100, 8.1, 4))
    assert row["rounds"] == 8
    (row,) = rows(call("newtriton", 1.0, 1.0), effort=Effort(100, 0.1, 4))
    assert row["rounds"] == LEAST


def test_numbers_that_differ_are_not_timed_unless_the_side_says_so() -> None:
    mine, told, other = rows(
        call("newtriton", 1.0),
        call("peer", 2.0),
        call("another", 2.0, differs="half of it", comparable=False),
    )[::1]
    assert {mine["provider"], told["provider"]} == {"newtriton", "another"}
    assert (told["differs"], told["error"]) == ("half of it", 0.5)
    assert other["disagrees"]
    assert other["refused"] == "its numbers are others: 5.0e-01 of their norm lies between"
    assert "y_value_50" not in other


def test_forms_of_another_hessian_are_not_timed_though_they_agree() -> None:
    problem, calls = (
        Problem.of("small-mlp"),
        [call("a", 1.0, 0.1, "form"), call("b", 1.0, 0.1, "form")],
    )
    first, second = speed(problem, PLACE, calls, UNIT, Effort(5, 0.1, 3), wrong={"b"})
    assert ("refused" in first, second["disagrees"]) == (False, True)


def test_numbers_that_share_no_name_do_not_agree() -> None:
    other = Call("peer", "hvp", lambda: Elapsed(0.1), lambda: {"y": torch.ones(1)})
    assert rows(call("newtriton", 1.0), other)[1]["disagrees"]


def test_a_failure_is_a_row_with_its_reason() -> None:
    def refused() -> Any:
        raise NotImplementedError("no such\nlayer")

    mine, theirs = rows(call("newtriton", 1.0), Call("peer", "hvp", refused, dict))
    assert "refused" not in mine
    assert theirs["refused"] == "NotImplementedError: no such"


def test_where_ours_fails_the_others_are_compared_with_each_other() -> None:
    def refused() -> Any:
        raise NotImplementedError("no")

    first, second, _ = rows(Call("newtriton", "hvp", refused, dict), call("a", 1.0), call("b", 1.0))
    assert ("error" in first, second["error"]) == (False, 0.0)


def test_a_step_counts_by_the_mean_of_a_cycle() -> None:
    (row,) = rows(call("newtriton, K-FAC", 1.0, operation="step"))
    assert (row["rounds"], row["y_value_mean"], row["per_gradient"]) == (4, 4.0, 2.0)


def test_seconds_of_another_process_are_its_own() -> None:
    assert measuring.seconds_of(lambda: Elapsed(12.0), torch.device("cpu")) == 12.0
    assert 0 <= measuring.seconds_of(lambda: None, torch.device("cpu")) < 1.0
