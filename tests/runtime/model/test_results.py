"""Results lie where the caller wants them: kernels write the flat vector, nothing shares it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import newtriton as nt
from newtriton.compiler.graph import ops, scalar
from newtriton.compiler.graph.ir import Graph, N, Node, Op, concrete
from newtriton.compiler.graph.scalar import var
from newtriton.runtime.aten.executor import AtenExecutor
from newtriton.runtime.backend import Context
from newtriton.runtime.fused.executor import FusedExecutor
from newtriton.runtime.fused.plan import Plan
from newtriton.runtime.fused.selection import Selection
from newtriton.runtime.fused.settings import Settings

RUN = Context(5, torch.float32, torch.device("cpu"))
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # masked elements, in NumPy
BACKENDS = ("aten", "triton")


def fused(precision: str, contractions: str) -> Callable[[Graph, list[Node]], FusedExecutor]:
    selection = Selection(Settings(precision, contractions, True))
    return lambda graph, keep: FusedExecutor(graph, keep, selection)


MAKE = {
    "aten": AtenExecutor,
    "ieee": fused("ieee", "fused"),
    "vendor": fused("ieee", "vendor"),
    "bf16": fused("bf16", "fused"),
}


class Copies(TorchDispatchMode):
    """Counts copies between tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten.copy_.default
        return func(*args, **(kwargs or {}))


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


@pytest.mark.interpreter
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


@pytest.mark.interpreter
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


@pytest.mark.parametrize("batch_norm", [False, True])
def test_programs_of_vgg_copy_nothing(batch_norm: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plan, "_launch", lambda *_: None)
    net = nt.models.vgg11(batch_norm=batch_norm)
    model = nt.compile(net, (3, 32, 32), nt.CrossEntropyLoss(), backend="triton", device="cpu")
    x, y = torch.randn(2, 3, 32, 32), torch.tensor([0, 1])
    lin = model.linearize(x, y)
    for call in (
        lambda: model.linearize(x, y),
        lambda: model.gradient(x, y),
        lambda: lin.hvp(model.params),
        lambda: lin.ggnvp(model.params),
    ):
        with Copies() as copies:
            call()
        assert copies.count == 0


@pytest.mark.interpreter
def test_parameters_may_have_one_gradient() -> None:
    net = nt.Sequential(nt.Linear(4), nt.Tanh(), nt.Add(nt.Linear(3), nt.Linear(3)))
    x, y = torch.randn(5, 6), torch.tensor([0, 1, 2, 0, 1])
    for backend in BACKENDS:
        model = nt.compile(net, (6,), nt.CrossEntropyLoss(), backend=backend, device="cpu")
        outputs = model.programs[True].linearize.graph.outputs
        assert len({n for k, n in outputs.items() if k.startswith("gradient:2")}) == 2
        lin = model.linearize(x, y)
        for vector in (lin.gradient, model.gradient(x, y)[1], lin.hvp(model.params)):
            first, second = (model.unflatten(vector)[f"2.{i}.bias"] for i in (0, 1))
            assert torch.equal(first, second) and first.any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_no_output_gives_is_zero(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "empty_like", lambda like: torch.full_like(like, math.nan))
    linear = nt.Criterion(lambda z, y: z * y)
    net = nt.Sequential(nt.Linear(4), nt.Tanh(), nt.Linear(3))
    model = nt.compile(net, (6,), linear, backend=backend, device="cpu")
    product = model.linearize(torch.randn(5, 6), torch.rand(5, 3)).hvp(model.params)
    assert "hvp:2.bias" not in model.programs[True].hvp.graph.outputs
    assert not model.unflatten(product)["2.bias"].any()
    assert product.isfinite().all() and product.any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("loss", [nt.CrossEntropyLoss, nt.BCEWithLogitsLoss])
def test_the_tape_is_not_what_is_returned(backend: str, loss: type) -> None:
    net = nt.Sequential(nt.Conv2d(2, 3), nt.BatchNorm2d(), nt.SiLU(), nt.Conv2d(3, 2), nt.Flatten())
    model = nt.compile(net, (2, 4, 4), loss(), backend=backend, device="cpu", weight_decay=0.1)
    x, y = torch.randn(3, 2, 4, 4), torch.tensor([0, 1, 2])
    v, generator = torch.randn_like(model.params), torch.Generator()
    lin = model.linearize(x, y)

    def answers() -> list[Tensor]:
        factors = lin.kronecker_factors("kfac", generator=generator.manual_seed(0))
        parts = [t for pair in factors.values() for t in pair.tensors.values()]
        return [lin.hvp(v), lin.ggnvp(v), lin.quadratic_forms([v]), *parts]

    before = [t.clone() for t in answers()]
    for t in (lin.gradient, lin.outputs, lin.loss, *lin.statistics.values(), *answers()):
        t.fill_(math.nan)
    assert all(map(torch.equal, answers(), before))


@pytest.mark.parametrize("backend", BACKENDS)
def test_weight_decay_is_added_to_what_is_returned(backend: str) -> None:
    net = nt.Sequential(nt.Linear(4), nt.Tanh(), nt.Linear(3))
    plain, decayed = (
        nt.compile(net, (6,), nt.MSELoss(), backend=backend, device="cpu", weight_decay=decay)
        for decay in (0.0, 0.3)
    )
    x, y = torch.randn(5, 6), torch.rand(5, 3)
    v, p = torch.randn_like(plain.params), plain.params
    a, b = plain.linearize(x, y), decayed.linearize(x, y)
    assert torch.equal(b.gradient, a.gradient.add(p, alpha=0.3))
    assert torch.equal(decayed.gradient(x, y)[1], b.gradient)
    for curvature, call in (("hessian", "hvp"), ("ggn", "ggnvp")):
        data = b.data_product(v, curvature)
        assert torch.equal(data, getattr(a, call)(v))
        assert torch.equal(getattr(b, call)(v), data.add(v, alpha=0.3))
    stored = b.data_product(v, "ggn", "stored-jacobian", by_layer=True)
    assert torch.equal(b.block_ggnvp(v), stored.add(v, alpha=0.3))


def test_products_that_there_are_not_are_refused() -> None:
    model = nt.compile(nt.Linear(3), (6,), nt.MSELoss(), backend="aten", device="cpu")
    lin = model.linearize(torch.randn(5, 6), torch.rand(5, 3))
    with pytest.raises(nt.NewtritonError, match="product is 'stored-jacobian'"):
        lin.data_product(model.params, "hessian", "stored-jacobian")
    with pytest.raises(nt.NewtritonError, match="curvature is 'fisher'"):
        lin.data_product(model.params, "fisher")
