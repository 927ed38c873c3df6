"""Compiled arithmetic on flat vectors against PyTorch's operators; conjugate gradients on it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
import torch
from torch import Tensor

import newtriton as nt
from newtriton.compiler import vectors as programs
from newtriton.compiler.graph.ir import Graph, Node
from newtriton.compiler.graph.program import Program
from newtriton.runtime.aten.executor import AtenExecutor
from newtriton.runtime.fused.executor import FusedExecutor
from newtriton.runtime.fused.selection import Selection
from newtriton.runtime.fused.settings import Settings
from newtriton.runtime.fused.vectors import CompiledVectors
from newtriton.runtime.parts.protocols import Status
from newtriton.runtime.solvers.cg import Stop, conjugate_gradients
from newtriton.runtime.vectors import System, Vectors

from ...tolerances import RELATIVE, assert_close
from ..stand_in import positive, seeded

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # masked elements, in NumPy


def interpreted(graph: Graph, keep: Iterable[Node] = ()) -> FusedExecutor:
    return FusedExecutor(graph, keep, Selection(Settings("ieee", "fused", True, 1024)))


BACKENDS = {"aten": (AtenExecutor, torch.float64), "triton": (interpreted, torch.float32)}


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> tuple[CompiledVectors, torch.dtype]:
    """Compiled vectors, and what they are made of."""
    make_executor, dtype = BACKENDS[request.param]
    return CompiledVectors(make_executor), dtype


def draw(count: int, n: int, dtype: torch.dtype) -> list[Tensor]:
    return list(torch.randn(count, n, generator=seeded(count), dtype=dtype))


@pytest.mark.parametrize("n", [1, 3, 33, 2500])
@pytest.mark.parametrize("count", [1, 3])
def test_inner_products_and_combinations(backend, n: int, count: int) -> None:
    compiled, dtype = backend
    vectors = draw(count, n, dtype)
    exact = Vectors().gram(vectors)
    scale = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
    assert np.abs((compiled.gram(vectors) - exact) / scale).max() <= RELATIVE[dtype]
    c = np.linspace(-1.0, 2.0, count)
    assert_close(compiled.combination(c, vectors), Vectors().combination(c, vectors))


def systems(n: int, dtype: torch.dtype) -> dict[str, tuple[Tensor, System]]:
    """Every way of an iteration, by name: A and what is solved with it."""
    a, (b,) = positive(n).to(dtype), draw(1, n, dtype)
    inverse = torch.linalg.inv(a + 0.3 * positive(n, 3).to(dtype))
    norm = float(torch.linalg.solve(a, b).norm())
    return {
        "plain": (a, System(b, 0.5)),
        "inside": (a, System(b, 0.1, 10 * norm)),
        "boundary": (a, System(b, 0.1, 0.3 * norm)),
        "downhill": (-a, System(b, 0.1, norm)),
        "no ball": (-a, System(b, 0.1)),
        "preconditioned": (a, System(b, 0.5, precondition=lambda r: inverse @ r)),
    }


@pytest.mark.parametrize("name", systems(2, torch.float64))
def test_iterates_are_those_of_the_oracle(backend, name: str) -> None:
    compiled, dtype = backend
    a, system = systems(17, dtype)[name]
    b = system.b.clone()
    expected, found = Vectors().first(system), compiled.first(system)
    places = {x.data_ptr() for x in (found.x, found.r, found.p)}
    for i in range(3):
        if i:
            expected, found = Vectors().turn(system, expected), compiled.turn(system, found)
        q, same = a @ expected.p, a @ found.p
        expected, numbers = Vectors().iterate(system, expected, q)
        found, others = compiled.iterate(system, found, same)
        for field, x in vars(found).items():
            assert_close(x, torch.as_tensor(getattr(expected, field), dtype=dtype), field)
        assert numbers == pytest.approx(others, rel=RELATIVE[dtype])
        assert {x.data_ptr() for x in (found.x, found.r, found.p)} == places
        if numbers.reached or numbers.curvature <= 0.0:
            break
    assert torch.equal(system.b, b)


@pytest.mark.parametrize("name", systems(2, torch.float64))
def test_solutions_are_those_of_the_oracle(backend, name: str) -> None:
    compiled, dtype = backend
    a, system = systems(17, dtype)[name]
    stop = Stop(40, 1e-3)
    expected = conjugate_gradients(lambda p: a @ p, system, stop)
    found = conjugate_gradients(lambda p: a @ p, system, stop, compiled)
    assert (found.status, found.statistics) == (expected.status, expected.statistics)
    assert_close(found.x, expected.x)
    if found.status is Status.BOUNDARY:
        assert float(found.x.norm()) == pytest.approx(system.radius, rel=RELATIVE[dtype])


def test_a_matrix_is_solved_for_in_its_own_shape(backend) -> None:
    compiled, dtype = backend
    a, b = positive(5).to(dtype), torch.randn(5, 4, generator=seeded(2), dtype=dtype)
    x = conjugate_gradients(lambda p: a @ p, System(b.T.contiguous().T), Stop(60, 1e-6), compiled).x
    assert_close(a @ x, b)


@pytest.mark.parametrize(
    "program",
    [
        programs.iteration(False, False),
        programs.iteration(True, False),
        programs.iteration(True, True),
        programs.turn(),
    ],
)
def test_an_iterate_may_be_written_over_the_last_one(program: Program) -> None:
    plan = interpreted(program.graph, ()).plan(5000)
    iterate = (programs.Solution(), programs.Residual(), programs.SearchDirection())
    launched = [
        (i, *pair)
        for i, launch in enumerate(plan.launches)
        for pair in zip(launch.kernels, launch.codes, strict=True)
    ]
    for key in [key for key in iterate if key in program.outputs and key in program.inputs]:
        old, new = program.inputs[key], program.outputs[key]
        *before, last = [found for found in launched if old in found[1].reads]
        at, kernel, code = last
        assert new in kernel.writes and code.overwriting.allows(old, new)
        assert all(earlier < at for earlier, *_ in before)


@pytest.mark.interpreter
def test_newton_cg_on_fused_kernels_makes_the_steps_of_pytorchs_operators() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(6, 5), torch.randint(0, 3, (6,))
    steps = {}
    for name in ("aten", "triton"):
        net = nt.Sequential(nt.Linear(7), nt.Tanh(), nt.Linear(3))
        model = nt.compile(net, (5,), nt.CrossEntropyLoss(), backend=name, weight_decay=0.01)
        optimizer = nt.NewtonCG(model)
        reports = [optimizer.step(x, y) for _ in range(2)]
        steps[name] = model.params, [r.cg_iterations for r in reports]
    assert steps["aten"][1] == steps["triton"][1]
    assert_close(steps["triton"][0], steps["aten"][0])
