"""Graphs of a batch of which other ranks have parts."""

from __future__ import annotations

import pytest
import torch

import newtriton as nt
from newtriton.compiler.graph import ops, scalar
from newtriton.compiler.graph.cost import communicated
from newtriton.compiler.graph.errors import NewtritonError, ShapeError
from newtriton.compiler.graph.ir import Graph, N, Node, Op, topological
from newtriton.compiler.graph.scalar import BATCH
from newtriton.compiler.language.network import trace
from newtriton.compiler.language.whole import SAMPLES, is_whole, of_whole
from newtriton.compiler.programs import Programs
from newtriton.compiler.values import BatchStatistic, Gradient, Normaliser, Samples
from newtriton.runtime.aten.executor import AtenExecutor
from newtriton.runtime.backend import Context

X = ops.input_("x", (N, 3))
ELSEWHERE = 10.0  # what all other ranks give to each sum


def evaluate(node: Node, x: torch.Tensor, samples: float) -> torch.Tensor:
    context = Context(len(x), torch.float64, torch.device("cpu"), lambda part: part + ELSEWHERE)
    graph = Graph("test", {"y": node})
    feed = {X: x, SAMPLES: torch.tensor(samples, dtype=torch.float64)}
    return AtenExecutor(graph)(context, feed)[node]


def test_a_mean_is_that_of_all_ranks() -> None:
    x = torch.arange(6.0, dtype=torch.float64).view(2, 3)
    mean = ops.scale(ops.reduce_sum(X, (0,)), scalar.reciprocal(BATCH))
    whole = of_whole([mean], summed=True)[mean]
    assert evaluate(whole, x, 5.0).tolist() == pytest.approx([2.6, 3.0, 3.4])
    part = of_whole([mean], summed=False)[mean]
    assert evaluate(part, x, 5.0).tolist() == pytest.approx([0.6, 1.0, 1.4])
    assert is_whole(whole, [SAMPLES]) and not is_whole(part, [SAMPLES])


def test_what_no_sample_has_is_contributed_in_proportion_to_them() -> None:
    sums = ops.scale(ops.reduce_sum(X, (0,)), scalar.reciprocal(BATCH))
    joined = ops.make(Op.CONCAT, sums, ops.broadcast(ops.const(1.0), (1,)), axis=0)
    part = of_whole([joined], summed=False)[joined]
    assert evaluate(part, torch.ones(2, 3).double(), 5.0).tolist() == pytest.approx([2 / 5] * 4)


def test_a_gram_and_a_product_over_samples_are_summed_and_their_bias_once() -> None:
    x, bias = torch.ones(2, 3).double(), ops.const(4.0)
    gram = ops.make(Op.GRAM, X, groups=1, homogeneous=False, scale=scalar.reciprocal(BATCH))
    assert torch.all(evaluate(of_whole([gram], summed=True)[gram], x, 4.0) == 2 / 4 + 10)
    product = ops.matmul(X, X, ops.broadcast(bias, (3,)), ta=True)
    assert torch.all(evaluate(of_whole([product], summed=True)[product], x, 4.0) == 2 + 10 + 4)


def test_what_mixes_samples_otherwise_is_refused() -> None:
    largest = ops.row_max(ops.transpose(X, (1, 0)))
    with pytest.raises(NewtritonError, match="mixes the samples of a batch, and is no sum"):
        of_whole([largest], summed=True)
    with pytest.raises(ShapeError, match="sum over these first"):
        ops.all_sum(X)


def net() -> nt.Sequential:
    return nt.Sequential(nt.Linear(4), nt.BatchNorm1d(), nt.Tanh(), nt.Linear(2))


def sums_of(program: object) -> int:
    return communicated(program.graph, 8)[0]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("part", "sums"), [(None, 0), ("own", 0), ("whole", 1)])
def test_each_batch_norm_takes_two_sums_a_pass(part: str | None, sums: int) -> None:
    """Mean and variance forward, their adjoints backward; tangents of both in products."""
    programs = Programs(trace(net(), (3,), nt.CrossEntropyLoss(), part=part))
    assert sums_of(programs.evaluate) == 2 * sums
    assert sums_of(programs.linearize) == 4 * sums
    assert sums_of(programs.hvp) == 4 * sums
    assert sums_of(programs.ggnvp) == 4 * sums
    assert sums_of(programs.quadratic(1)) == 2 * sums
    calls, size = communicated(programs.evaluate.graph, 8)
    assert size == calls * 8 * 4
    read = {type(key) for key in programs.linearize.inputs}
    assert (Normaliser in read) is (part is not None) and (Samples in read) is (part == "whole")


def test_gradients_are_contributions_and_statistics_of_the_whole_are_not() -> None:
    programs = Programs(trace(net(), (3,), nt.CrossEntropyLoss(), part="whole"))
    kinds = {type(key) for key in programs.parts(programs.linearize)}
    assert kinds == {Gradient}
    own = Programs(trace(net(), (3,), nt.CrossEntropyLoss(), part="own"))
    assert {type(key) for key in own.parts(own.linearize)} == {Gradient, BatchStatistic}


def test_a_recursion_has_factors_of_the_whole() -> None:
    chain = nt.Sequential(nt.Linear(4), nt.Tanh(), nt.Linear(2))
    programs = Programs(trace(chain, (3,), nt.MSELoss(), part="whole"))
    program = programs.factors("kfra")
    assert {key.kind for key in programs.parts(program)} == {"A"}
    assert any(n.op is Op.ALL_SUM for n in topological(program.outputs.values()))
    taped = programs.factors("kfac")
    assert {key.kind for key in programs.parts(taped)} == {"A", "G"}
