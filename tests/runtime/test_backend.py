"""Both backends are what `Backend` says, and so are their executors and plans."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch

from newtriton.compiler.graph import ops
from newtriton.compiler.graph.ir import Graph, N
from newtriton.runtime.aten.executor import AtenBackend
from newtriton.runtime.backend import Backend, Context, Executor, Planned
from newtriton.runtime.fused import codecache
from newtriton.runtime.fused.backend import TritonBackend
from newtriton.runtime.fused.settings import Settings
from newtriton.runtime.vectors import Vectors

CPU = torch.device("cpu")
x, w = ops.input_("x", (N, 3)), ops.param("w", (2, 3))
y = ops.matmul(x, w, tb=True)
GRAPH = Graph("product", {"y": y, "squares": ops.multiply(y, y)})

aten = AtenBackend(CPU)
triton = TritonBackend(Settings("tf32", "fused", interpreted=True), CPU)
backends = pytest.mark.parametrize("backend", [aten, triton], ids=lambda b: type(b).__name__)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(codecache.FOLDER, str(tmp_path / "cache"))


def members(protocol: type) -> set[str]:
    """The names that a protocol asks for."""
    return {n for n in vars(protocol) if not n.startswith("_") or n == "__call__"}


def parameters(function: object) -> list[str]:
    return [*inspect.signature(function).parameters]  # type: ignore[arg-type]


@backends
def test_a_backend_has_what_the_protocol_asks_for(backend: Backend) -> None:
    assert {name for name in members(Backend) if hasattr(backend, name)} == members(Backend)
    assert parameters(type(backend).executor) == parameters(Backend.executor)
    assert backend.device == CPU
    assert isinstance(backend.vectors, Vectors)


def test_operands_are_rounded_on_one_alone() -> None:
    assert (aten.precision, aten.two_products(1e9)) == ("ieee", True)
    assert (triton.precision, triton.two_products(1e9)) == ("tf32", False)


@backends
def test_an_executor_has_what_the_protocol_asks_for(backend: Backend) -> None:
    executor = type(backend.executor(GRAPH))
    for name in members(Executor):
        assert parameters(getattr(executor, name)) == parameters(getattr(Executor, name))


def test_operators_have_no_plan_and_fused_kernels_have_one() -> None:
    assert aten.executor(GRAPH).plan(4) is None
    plan = triton.executor(GRAPH).plan(4)
    assert plan is not None
    assert {name for name in members(Planned) if hasattr(plan, name)} == members(Planned)
    assert plan.schedule.kernels and "@triton.jit" in plan.source


def test_operators_return_outputs_and_what_is_kept() -> None:
    given = {x: torch.ones(4, 3), w: torch.arange(6.0).view(2, 3)}
    graph = Graph("squares", {"squares": GRAPH.outputs["squares"]})
    target = torch.empty(4, 2)
    found = aten.executor(graph, [y])(
        Context(4, torch.float32, CPU), given, out={"squares": target}
    )
    assert set(found) == {y, graph.outputs["squares"]}
    assert found[y].tolist() == [[3.0, 12.0]] * 4
    assert target.tolist() == [[9.0, 144.0]] * 4
