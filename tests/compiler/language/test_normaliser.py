"""Sums divided by a number of the batch size, or by a node."""

from __future__ import annotations

from newtriton.compiler.graph import ops, scalar
from newtriton.compiler.graph.ir import N
from newtriton.compiler.graph.scalar import BATCH, var
from newtriton.compiler.language.normaliser import of_samples, over, split

X, M = ops.input_("x", (N, 3)), ops.reduce_sum(ops.input_("counts", (N,)))


def test_a_number_of_the_batch_size_stays_a_number():
    normaliser = ops.const(BATCH * 4.0)
    assert split(normaliser) == (BATCH * 4.0, None)
    assert over(X, normaliser) is ops.scale(X, scalar.reciprocal(BATCH * 4.0))
    assert of_samples(X, normaliser, 3.0) is ops.scale(X, 6.0)
    assert of_samples(X, ops.const(BATCH)) is ops.scale(X, 1.0)


def test_a_node_is_spread_over_what_it_divides():
    assert split(M) == (scalar.ONE, M)
    spread = ops.broadcast(M, X.shape)
    assert over(X, M) is ops.map_(var(0) / var(1), X, spread)
    root = scalar.sqrt(var(1) * scalar.reciprocal(BATCH))
    assert of_samples(X, M, 3.0) is ops.map_(3.0 * var(0) * root, X, spread)
