"""The battery's problems: every one compiles, and its split is the same each time."""

from __future__ import annotations

import math

import pytest
import torch

import newtriton as nt
from newtriton.bench._problems import HELD_OUT, PROBLEMS


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_problem_starts_at_a_finite_loss(name: str) -> None:
    problem = PROBLEMS[name]
    train, held_out = problem.samples()
    model = nt.compile(problem.net(), tuple(train.x.shape[1:]), problem.loss, device="cpu")
    for part in (train, held_out):
        assert math.isfinite(float(model.loss(*part)))


def test_a_split_is_the_same_each_time_and_scaled_by_its_training_part() -> None:
    problem = PROBLEMS["wine"]
    (train, held_out), (again, _) = problem.samples(), problem.samples()
    assert torch.equal(train.x, again.x) and torch.equal(train.y, again.y)
    assert len(held_out.x) == round(HELD_OUT * (len(train.x) + len(held_out.x)))
    assert float(train.x.mean(0).abs().max()) < 1e-5
    assert float((train.x.std(0, correction=0) - 1.0).abs().max()) < 1e-5


def test_there_are_the_troubles_that_defaults_have_to_bear() -> None:
    assert float(PROBLEMS["minority"].samples()[0].y.float().mean()) < 0.07
    assert float(PROBLEMS["friedman-1e5"].samples()[0].y.std()) > 5e4
    for name in ("breast-raw", "columns"):
        scales = PROBLEMS[name].samples()[0].x.std(0)
        assert float(scales.max() / scales.min()) > 1e5
    losses = {type(problem.loss) for problem in PROBLEMS.values()}
    assert losses == {nt.CrossEntropyLoss, nt.MSELoss, nt.BCEWithLogitsLoss}
    assert {problem.batch_size for problem in PROBLEMS.values()} >= {0, 16, 32, 128}
