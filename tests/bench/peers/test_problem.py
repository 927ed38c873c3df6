"""All sides get the same problem, and are compared by the norm."""

from __future__ import annotations

import math

import pytest
import torch

from newtriton.bench.peers.problem import Problem, dot, named, relative_error

from . import tiny


def test_a_problem_comes_from_its_seed() -> None:
    first, second = (Problem.of("small-mlp") for _ in range(2))
    assert torch.equal(first.inputs, second.inputs)
    assert all(torch.equal(first.v[name], second.v[name]) for name in first.v)
    assert not torch.equal(first.v["0.weight"], first.u["0.weight"])


def test_calls_may_take_a_part_of_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = tiny.problem(monkeypatch, "tiny-mlp", torch.float32)
    assert (problem.samples, len(problem.x)) == (6, 6)
    problem.samples = 2
    assert (len(problem.x), len(problem.y)) == (2, 2)
    assert torch.equal(problem.x, problem.inputs[:2])


def test_factors_are_compared_on_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = tiny.problem(monkeypatch, "tiny-cnn", torch.float64)
    assert problem.kronecker == ["0.weight", "0.bias", "5.weight", "5.bias"]
    assert not problem.w["0.bias"].any()
    assert torch.equal(problem.w["0.weight"], problem.v["0.weight"])


def test_a_copy_is_its_owners() -> None:
    problem = Problem.of("small-mlp")
    with torch.no_grad():
        next(problem.copy().parameters()).zero_()
    assert next(problem.net.parameters()).any()


def test_the_error_is_relative_over_what_both_have() -> None:
    ours = {"a": torch.tensor([3.0, 4.0]), "b": torch.tensor(7.0)}
    assert relative_error(ours, {"a": torch.tensor([3.0, 5.0])}) == pytest.approx(1 / 34**0.5)
    assert relative_error(ours, {"a": torch.tensor([3.0, 4.0])}) == 0.0
    assert math.isnan(relative_error(ours, {"c": torch.tensor(1.0)}))


def test_vectors_go_by_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = tiny.problem(monkeypatch, "tiny-mlp", torch.float64)
    params = list(problem.net.parameters())
    found = named(problem, params)
    assert found["2.bias"] is params[3]
    flat = [torch.cat([t.flatten() for t in x.values()]) for x in (problem.u, problem.v)]
    assert dot(problem.u, problem.v) == pytest.approx(float(flat[0] @ flat[1]))
