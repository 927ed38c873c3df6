"""Results lie where the caller wants them, and nothing else lies there."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pytest
import torch
from torch import Tensor

from newtriton.compiler import ops, scalar
from newtriton.compiler.ir import Graph, N, Node, Op, concrete
from newtriton.compiler.scalar import var
from newtriton.runtime.executor import Executor
from newtriton.runtime.fusion import FusedExecutor, Settings
from newtriton.runtime.pointwise import Run

RUN = Run(5, torch.float32, torch.device("cpu"))
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # masked elements, in NumPy
MAKE = {
    "aten": Executor,
    "ieee": lambda graph, keep: FusedExecutor(graph, keep, Settings("ieee", "fused", True)),
    "vendor": lambda graph, keep: FusedExecutor(graph, keep, Settings("ieee", "vendor", True)),
    "bf16": lambda graph, keep: FusedExecutor(graph, keep, Settings("bf16", "fused", True)),
}


def shared_outputs() -> tuple[Graph, list[Node]]:
    """Outputs of every sort, and a tape with one of them.

    Alone, under two names, a reshape of another, a leaf, a number, an operand, one on the tape.
    """
    x, w = ops.input_("x", (N, 5)), ops.param("w", (7, 5))
    y = ops.matmul(x, w, tb=True)
    s = ops.map_(scalar.tanh(var(0)), y)
    total = ops.reduce_sum(y, (0,))
    kept = ops.map_(scalar.exp(var(0)), y)
    outputs = {
        "alone": ops.reduce_sum(kept, (0,)),
        "product": ops.matmul(s, x, ta=True),
        "one": total, "twin": total,
        "matrix": s, "flat": ops.reshape(s, (N, 1, 7)),
        "leaf": w,
        "number": ops.const(2.0),
        "taped": kept,
    }  # fmt: skip
    return Graph("outputs", outputs), [kept, y]


def feed_of(graph: Graph) -> dict[Node, Tensor]:
    generator = torch.Generator().manual_seed(0)
    leaves = [n for n in graph.nodes() if n.op in (Op.INPUT, Op.PARAM)]
    return {n: torch.randn(concrete(n.shape, RUN.batch), generator=generator) for n in leaves}


def apart(graph: Graph, names: Iterable[str]) -> tuple[Tensor, dict[str, Tensor]]:
    """Memory full of NaN and views of it for outputs, with a NaN between any two."""
    shapes = {name: concrete(graph.outputs[name].shape, RUN.batch) for name in names}
    flat = torch.full((sum(math.prod(s) + 1 for s in shapes.values()) + 1,), math.nan)
    views, start = dict[str, Tensor](), 1
    for name, shape in shapes.items():
        views[name] = flat[start : start + math.prod(shape)].view(shape)
        start += math.prod(shape) + 1
    return flat, views


def storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


@pytest.mark.parametrize("make", list(MAKE))
def test_outputs_are_the_same_wherever_they_lie(make: str) -> None:
    graph, keep = shared_outputs()
    feed, executor = feed_of(graph), MAKE[make](graph, keep)
    expected = executor(RUN, feed)
    for names in (list(graph.outputs), ["alone", "flat"], ["twin", "taped", "matrix"]):
        flat, out = apart(graph, names)
        found = executor(RUN, feed, out)
        for name, view in out.items():
            assert torch.equal(view, expected[graph.outputs[name]]), name
        assert int(flat.isnan().sum()) == len(out) + 1, "nothing beside them is written"
        assert all(torch.equal(found[n], expected[n]) for n in expected)
        other = {n for name, n in graph.outputs.items() if name not in out}
        for node in other.union(keep, found.keys() - graph.outputs.values()):
            assert storage(found[node]) != storage(flat)


@pytest.mark.parametrize(
    ("names", "written"),
    [
        (["alone", "product", "one", "flat", "leaf", "number"], ["alone", "product"]),
        (["one", "twin", "matrix", "flat"], ["twin", "flat"]),
        (["alone", "taped"], ["alone"]),
    ],
)
def test_kernels_write_what_nothing_else_shares(names: list[str], written: list[str]) -> None:
    graph, keep = shared_outputs()
    _, out = apart(graph, names)
    found = MAKE["ieee"](graph, keep)(RUN, feed_of(graph), out)
    assert [k for k in out if found[graph.outputs[k]].data_ptr() == out[k].data_ptr()] == written
