"""Networks are described for JAX, and vectors go there and back; its process says what it lacks."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import nn

import newtriton as nt
from newtriton.bench.peers import ours, with_jax
from newtriton.bench.peers.problem import OPERATIONS, Problem, relative_error


def test_its_process_is_stopped_between_calls() -> None:
    worker = with_jax.Worker()
    try:
        for _ in range(2):
            with suppress(ModuleNotFoundError):  # where JAX is not installed it answers so
                worker.ask("versions", None)
            _, status = os.waitpid(worker.process.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status)
    finally:
        worker.end()


def test_a_module_without_a_description_is_refused_by_name() -> None:
    with pytest.raises(nt.NewtritonError, match="Bilinear has no description"):
        with_jax.described(nn.Sequential(nn.Bilinear(2, 2, 2)))


@pytest.mark.parametrize("name", ["lenet", "gpt", "vit"])
def test_vectors_come_back_as_they_went(name: str) -> None:
    problem = Problem.of(name, 1)
    for parameter, t in problem.v.items():
        array = with_jax.there(problem, parameter, t)
        assert torch.equal(with_jax.here(problem, parameter, array), t)


@pytest.fixture(scope="module")
def known() -> Any:
    if not with_jax.versions():
        pytest.skip("kfac-jax is not installed: NEWTRITON_JAX names an interpreter that has it")
    return None


def test_jax_computes_the_same(known: None) -> None:
    problem = Problem.of("small-cnn", 4)
    wanted = [operation for operation in OPERATIONS if operation not in ("ekfac", "step")]
    mine = {call.operation: call.numbers() for call in ours.calls(problem, wanted)}
    for call in with_jax.calls(problem, wanted):
        assert relative_error(mine[call.operation], call.numbers()) < 1e-4, call
