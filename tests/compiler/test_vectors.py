"""Programs over flat vectors: how few launches and passes they take."""

import pytest

from newtriton.compiler import vectors
from newtriton.compiler.graph.ir import Op
from newtriton.compiler.graph.program import Program
from newtriton.compiler.lowering.schedule import schedule

PROGRAMS = [
    *(vectors.inner_products(3), vectors.combination(2), vectors.turn()),
    *(vectors.iteration(ball, other) for ball in (False, True) for other in (False, True)),
]


@pytest.mark.parametrize(("ball", "moves"), [(False, 11), (True, 12)])
def test_an_iteration_is_five_launches_and_three_passes(ball: bool, moves: int) -> None:
    scheduled = schedule(vectors.iteration(ball, preconditioned=False).graph, 10_000)
    passes = [k for k in scheduled.kernels if k.space.shape == vectors.VECTOR]
    assert (len(scheduled.launches), len(passes)) == (5, 3)
    read = sum(x.shape == vectors.VECTOR for k in passes for x in (*k.reads, *k.writes))
    assert read == moves


def test_inner_products_read_each_vector_once() -> None:
    scheduled = schedule(vectors.inner_products(4).graph, 10_000)
    reads = [x for k in scheduled.kernels for x in k.reads if x.shape == vectors.VECTOR]
    assert len(reads) == 4


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_programs_declare_all_that_they_read_and_give(program: Program) -> None:
    leaves = {n for n in program.graph.nodes() if n.op is Op.INPUT}
    assert {str(key): n for key, n in program.inputs.items()} == {n["name"]: n for n in leaves}
    assert {str(key): n for key, n in program.outputs.items()} == program.graph.outputs
