"""Programs over flat vectors: how few launches and passes they take."""

import pytest

from newtriton.compiler import vectors
from newtriton.compiler.lowering.schedule import schedule


@pytest.mark.parametrize(("ball", "moves"), [(False, 11), (True, 12)])
def test_an_iteration_is_five_launches_and_three_passes(ball: bool, moves: int) -> None:
    scheduled = schedule(vectors.iteration(ball, preconditioned=False), 10_000)
    passes = [k for k in scheduled.kernels if k.space.shape == vectors.VECTOR]
    assert (len(scheduled.launches), len(passes)) == (5, 3)
    read = sum(x.shape == vectors.VECTOR for k in passes for x in (*k.reads, *k.writes))
    assert read == moves


def test_inner_products_read_each_vector_once() -> None:
    scheduled = schedule(vectors.inner_products(4), 10_000)
    reads = [x for k in scheduled.kernels for x in k.reads if x.shape == vectors.VECTOR]
    assert len(reads) == 4
