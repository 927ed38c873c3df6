"""Sums over samples: where they are found, and that those of parts add up to those of a batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from newtriton.compiler.graph import ops, scalar
from newtriton.compiler.graph.errors import NewtritonError
from newtriton.compiler.graph.ir import Graph, N, Node, Op, Type
from newtriton.compiler.graph.program import Output
from newtriton.compiler.graph.scalar import BATCH, var
from newtriton.compiler.graph.sums import Sum, in_stages, is_sum, mixing, with_samples
from newtriton.compiler.values import Losses
from newtriton.runtime.aten.executor import AtenExecutor
from newtriton.runtime.backend import Context

X, W = ops.input_("x", (N, 3)), ops.param("w", (2, 3))
SAMPLES = ops.input_("samples", ())


def run(nodes: dict[str, Node], batch: int, feed: dict[Node, Tensor]) -> dict[str, Tensor]:
    executor = AtenExecutor(Graph("sums", nodes))
    found = executor(Context(batch, torch.float64, torch.device("cpu")), feed)
    return {name: found[node] for name, node in nodes.items()}


def gram(x: Node) -> Node:
    scale = scalar.reciprocal(BATCH)
    return ops.make(Op.GRAM, x, groups=1, homogeneous=True, scale=scale)


def centred(x: Node) -> Node:
    """Deviations from the mean over the samples."""
    mean = ops.scale(ops.reduce_sum(x, (0,)), scalar.reciprocal(BATCH))
    return ops.map_(var(0) - var(1), x, ops.broadcast(mean, x.shape, (0,)))


def test_sums_are_values_that_have_lost_the_batch() -> None:
    assert is_sum(ops.reduce_sum(X, (0,))) and is_sum(gram(X))
    assert is_sum(ops.matmul(X, X, ta=True))
    assert not is_sum(ops.reduce_sum(X, (1,))) and not is_sum(ops.reduce_sum(W, (0,)))


def test_what_mixes_samples_is_found() -> None:
    alone = ops.matmul(X, W, tb=True)
    assert mixing([alone]) is None
    mixed = mixing([centred(alone)])
    assert mixed is not None and mixed.op is Op.REDUCE_SUM
    assert mixing([ops.scale(alone, scalar.reciprocal(BATCH))]) is not None, "it reads their number"


def test_the_number_of_samples_is_a_leaf_wherever_it_is_read() -> None:
    squares = ops.map_(var(0) * var(0) * scalar.reciprocal(BATCH), X)
    nodes = {"const": ops.const(BATCH * 2.0), "gram": gram(X), "map": squares}
    given = with_samples(nodes, SAMPLES)
    x = torch.randn(4, 3, dtype=torch.float64)
    expected = run(nodes, 4, {X: x})
    found = run(given, 4, {X: x, SAMPLES: torch.tensor(4.0, dtype=torch.float64)})
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
    half = run(given, 4, {X: x, SAMPLES: torch.tensor(8.0, dtype=torch.float64)})
    torch.testing.assert_close(half["gram"], 0.5 * expected["gram"])
    assert float(half["const"]) == 16.0


@pytest.mark.parametrize(("make", "passes"), [(gram, 1), (lambda x: gram(centred(x)), 2)])
def test_sums_of_parts_give_the_value_of_the_batch(make, passes: int) -> None:
    value = ops.map_(scalar.exp(var(0)), make(X))
    given = with_samples({"value": value}, SAMPLES)
    key: Output = Losses()
    stages = in_stages({key: given["value"]})
    assert len(stages.sums) == passes
    x = torch.randn(7, 3, dtype=torch.float64)
    feed: dict[Node, Tensor] = {SAMPLES: torch.tensor(7.0, dtype=torch.float64)}
    for sums in stages.sums:
        nodes = {str(name): node for name, node in sums.items()}
        parts = [run(nodes, len(part), feed | {X: part}) for part in x.split(3)]
        for name, node in sums.items():
            assert isinstance(name, Sum)
            leaf = ops.input_(str(name), node.shape)
            feed[leaf] = sum(part[str(name)] for part in parts)  # type: ignore[assignment]
    found = run({"value": stages.rest[key]}, 1, feed)["value"]
    torch.testing.assert_close(found, run({"value": value}, 7, {X: x})["value"])


def test_values_of_samples_stay_with_their_pass() -> None:
    losses = ops.reduce_sum(X, (1,))
    assert in_stages({Losses(): losses}).rest == {Losses(): losses}


def test_an_op_that_is_no_sum_is_refused() -> None:
    largest = Node(Op.ROW_MAX, (X,), {}, Type((3,)))  # as no op is made today
    with pytest.raises(NewtritonError, match="is no sum over samples"):
        in_stages({Losses(): largest})
