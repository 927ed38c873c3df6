"""The executor: fused patterns equal their unfused graphs, groups of maps equal single maps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import newtriton as nt
from newtriton.compiler.derivatives.transpose import vjp
from newtriton.compiler.graph import ops, scalar
from newtriton.compiler.graph.ir import Graph, N, Node, Op, concrete
from newtriton.compiler.graph.scalar import var
from newtriton.compiler.graph.simplify import simplify
from newtriton.compiler.layers import activations
from newtriton.runtime.aten import patterns as fused
from newtriton.runtime.aten import pointwise
from newtriton.runtime.aten.executor import AtenExecutor, compile_steps
from newtriton.runtime.aten.pairs import paired
from newtriton.runtime.aten.pointwise import Pointwise
from newtriton.runtime.aten.rules import ATEN
from newtriton.runtime.backend import Context
from tests.tolerances import assert_close

RUN = Context(5, torch.float64, torch.device("cpu"))


def feed_of(graph: Graph, seed: int = 0) -> dict[Node, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        n: torch.randn(concrete(n.shape, RUN.batch), generator=generator, dtype=torch.float64)
        for n in graph.nodes()
        if n.op in (Op.INPUT, Op.PARAM)
    }


def one_by_one(graph: Graph, feed: dict[Node, Tensor]) -> dict[Node, Tensor]:
    """Every node by its own rule: the reference for groups and patterns."""
    values = dict(feed)
    for node in graph.nodes():
        if node not in values:
            single = Graph("one", {"x": node}, frozenset(node.inputs))
            values |= AtenExecutor(single)(RUN, values)
    return values


def mixed() -> Graph:
    """Maps of two shapes, shared subexpressions, sums of both kinds, a row broadcast, a view."""
    x, y = ops.input_("x", (N, 3, 4)), ops.input_("y", (N, 3, 4))
    row = ops.broadcast(ops.input_("b", (4,)), x.shape)
    s = ops.map_(var(0) * scalar.sigmoid(var(0)) + var(1), x, row)
    slope = ops.map_(scalar.sigmoid(var(0)) * var(1) - 2.0 * var(0), x, y)
    wide = ops.map_(scalar.exp(-1.0 * var(0) * var(0)) / (3.0 + var(1)), s, slope)
    total, columns = ops.dot(slope, wide), ops.reduce_sum(wide, (0, 1))
    scaled = ops.map_(var(0) * var(1), wide, ops.broadcast(total, wide.shape))
    return Graph("mixed", {"a": scaled, "b": total, "c": columns, "d": ops.reshape(slope, (N, 12))})


@pytest.mark.parametrize("chunk", [1 << 17, 8, 1])
def test_groups_of_maps_equal_single_maps(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pointwise, "CHUNK", chunk)
    graph = mixed()
    feed = feed_of(graph)
    values, expected = AtenExecutor(graph)(RUN, feed), one_by_one(graph, feed)
    for name, node in graph.outputs.items():
        assert_close(values[node], expected[node], name)


def test_equal_subexpressions_of_a_group_are_computed_once() -> None:
    x = ops.input_("x", (N, 4))
    a = ops.map_(scalar.sigmoid(var(0)), x)
    b = ops.map_(scalar.sigmoid(var(0)) * var(0), x)
    group = Pointwise([a, b], [a, b])
    loop = pointwise._Loop(group, 5)
    assert len(loop.instructions) == 2


def test_values_that_nobody_needs_are_not_written() -> None:
    x = ops.input_("x", (N, 4))
    square = ops.map_(var(0) * var(0), ops.map_(scalar.exp(var(0)), x))
    (step,) = compile_steps(Graph("sum", {"s": ops.reduce_sum(square)}))
    assert [n.op for n in step.writes] == [Op.REDUCE_SUM]


@pytest.mark.parametrize("expr", list(fused.FUSED_MAPS), ids=str)
def test_fused_maps_equal_their_expressions(expr: scalar.Expr) -> None:
    inputs = [ops.input_(name, (N, 7)) for name in "xy"][: 1 + max(scalar.operands(expr))]
    node = ops.map_(expr, *inputs)
    feed = feed_of(Graph("map", {"y": node}))
    operands = [feed[i] for i in inputs]
    fast = fused.FUSED_MAPS[expr](*operands)
    plan = pointwise._Loop(Pointwise([node], [node]), RUN.batch)
    assert_close(fast, plan.run(RUN, operands)[0], str(expr))


def test_derivatives_are_found_in_the_form_that_differentiation_gives() -> None:
    for make in (activations.ReLU, activations.SiLU, activations.GELU):
        assert scalar.derivative(make().expr, 0) * var(1) in fused.FUSED_MAPS


def test_pool_and_bias_gradient_share_an_operator() -> None:
    net = nt.Sequential(nt.Conv2d(4, 3), nt.SiLU(), nt.MaxPool2d(2), nt.Flatten(), nt.Linear(3))
    model = nt.compile(net, (2, 6, 6), nt.CrossEntropyLoss(), dtype=torch.float64)
    graph = model.programs[True].linearize.graph
    feed = feed_of(graph)
    feed[next(n for n in graph.nodes() if n.type.kind == "int" and n.op is Op.INPUT)] = (
        torch.tensor([0, 1, 2, 0, 1])
    )
    together = [{n.op for n in s.writes} for s in compile_steps(graph) if len(s.writes) > 1]
    assert {Op.ARGMAX_POOL, Op.GATHER_MAX} in together
    assert {Op.CONV_WEIGHT_GRAD, Op.REDUCE_SUM} in together
    values, expected = AtenExecutor(graph)(RUN, feed), one_by_one(graph, feed)
    for name, node in graph.outputs.items():
        assert_close(values[node], expected[node], name)


def test_a_loss_and_its_adjoint_are_a_softmax_and_a_look_at_the_labels() -> None:
    z, y = ops.input_("z", (N, 7)), ops.input_("y", (N,), "int")
    losses = nt.CrossEntropyLoss(ignore_index=-1).losses(z, y)
    ct = ops.broadcast(ops.const(1.0), losses.shape)
    graph = Graph("loss", simplify({"losses": losses, "ct": vjp({losses: ct}, [z])[z]}))
    wide = [s for s in compile_steps(graph) if any(n.shape == (N, 7) for n in s.writes)]
    kinds = [[n.op for n in s.writes if n.op is not Op.BROADCAST] for s in wide]
    assert sorted(filter(None, kinds)) == [[Op.LOG_SUM_EXP, Op.MAP], [Op.MAP], [Op.ONE_HOT]]
    logits = 1e3 * torch.randn(5, 7, dtype=torch.float64)
    labels = torch.tensor([0, 6, -1, 2, 3])
    found = AtenExecutor(graph)(RUN, {z: logits, y: labels})
    logits.requires_grad_()
    expected = torch.nn.functional.cross_entropy(logits, labels, ignore_index=-1, reduction="none")
    assert_close(found[graph.outputs["losses"]], expected.detach())
    (slope,) = torch.autograd.grad(expected.sum(), logits)
    assert_close(found[graph.outputs["ct"]], slope)


def test_nothing_is_recorded_for_autograd() -> None:
    model = nt.compile(nt.Linear(3), (4,), nt.MSELoss())
    x = torch.randn(5, 4, requires_grad=True)
    lin = model.linearize(x, torch.rand(5, 3))
    assert not lin.gradient.requires_grad
    assert not lin.outputs.requires_grad


def test_buffers_are_released_at_their_last_use() -> None:
    x = ops.input_("x", (N, 4))
    node = x
    for i in range(6):
        wide = ops.make(Op.PAD, ops.scale(node, 1.0 + i), axis=1, low=0, high=1)
        node = ops.make(Op.SLICE, wide, axis=1, start=0, stop=4)
    executor = AtenExecutor(Graph("chain", {"y": node}))
    live, most = {x}, 0
    for step, release in zip(executor.steps, executor.release, strict=True):
        live |= set(step.writes)
        most = max(most, len(live))
        live -= set(release)
    assert most <= 4
    assert live >= set(executor.steps[-1].writes)


def test_one_program_serves_every_batch_size() -> None:
    model = nt.compile(nt.Sequential(nt.Linear(8), nt.Tanh(), nt.Linear(3)), (4,), nt.MSELoss())
    torch.manual_seed(0)
    x, y = torch.randn(6, 4), torch.rand(6, 3)
    whole = model.linearize(x, y).gradient
    parts = [model.linearize(x[i : i + k], y[i : i + k]).gradient * k for i, k in ((0, 1), (1, 5))]
    assert_close(sum(parts) / 6, whole)  # type: ignore[arg-type]
    assert len(model.runner._executors) == 1


def test_a_sum_over_other_axes_is_no_bias_gradient() -> None:
    ct, x = ops.input_("ct", (N, 4, 4, 6)), ops.input_("x", (N, 4, 4, 2))
    window = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
    gradient = ops.make(Op.CONV_WEIGHT_GRAD, ct, x, kernel=(3, 3), **window)
    bias, other = ops.reduce_sum(ct, (0, 1, 2)), ops.reduce_sum(ct, (1, 2, 3))
    assert [list(s.writes) for s in paired([gradient, bias, other])] == [[gradient, bias]]


def test_eigenvalues_that_are_not_found_are_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(x: torch.Tensor) -> None:
        raise torch.linalg.LinAlgError("the algorithm failed to converge")

    monkeypatch.setattr(torch.linalg, "eigh", fail)
    x = ops.input_("x", (2, 3, 3))
    node = ops.make(Op.SPECTRAL, x, expr=scalar.sqrt(scalar.var(0)))
    context = Context(1, torch.float32, torch.device("cpu"))
    assert ATEN[Op.SPECTRAL](node)(context, torch.ones(2, 3, 3)).isnan().all()


def test_integers_count_as_numbers_in_maps_and_sums() -> None:
    ids, shift = ops.input_("ids", (N, 3), "int"), ops.input_("shift", (3,), "int")
    copied = ops.broadcast(shift, ids.shape, (0,))
    assert copied.type.kind == "int"
    moved, total = ops.map_(var(0) - 2.0 * var(1), ids, copied), ops.reduce_sum(copied, (1,))
    assert moved.type.kind == total.type.kind == "float"
    feed = {ids: torch.arange(6).view(2, 3), shift: torch.arange(3)}
    context = Context(2, torch.float64, torch.device("cpu"))
    found = AtenExecutor(Graph("numbers", {"moved": moved, "total": total}))(context, feed)
    assert found[moved].tolist() == [[0.0, -1.0, -2.0], [3.0, 2.0, 1.0]]
    assert found[total].tolist() == [3.0, 3.0]
    assert found[moved].dtype == found[total].dtype == torch.float64


@pytest.mark.parametrize("lead", [(), (2,)], ids=["one", "copies"])
def test_added_rows_are_bitwise_equal_whatever_the_threads(lead: tuple[int, ...]) -> None:
    words, ct = ops.input_("w", (N, 200), "int"), ops.input_("ct", (*lead, N, 200, 96))
    added = ops.make(Op.SCATTER_ROWS, ct, words, size=50)
    generator = torch.Generator().manual_seed(0)
    often = torch.randint(-50, 50, (RUN.batch, 200), generator=generator).clamp(min=0)
    feed = {words: often, ct: torch.randn(*lead, RUN.batch, 200, 96, generator=generator)}
    executor, threads = AtenExecutor(Graph("rows", {"added": added})), torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 3, 2):
            torch.set_num_threads(count)
            found.append(executor(RUN._replace(dtype=torch.float32), feed)[added].clone())
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(found[0], other) for other in found)
    hot = torch.nn.functional.one_hot(often.flatten(), 50).double()
    expected = hot.T @ feed[ct].double().flatten(-3, -2)
    assert_close(found[0], expected.float())
