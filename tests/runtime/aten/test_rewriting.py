"""Rewriting: values stay; what does not vary leaves maps and sums; norms take few passes."""

from __future__ import annotations

import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import newtriton as nt
from newtriton.compiler.graph import ops, scalar
from newtriton.compiler.graph.ir import Graph, N, Node, Op, concrete, topological
from newtriton.compiler.graph.scalar import Expr, var
from newtriton.runtime.aten.executor import AtenExecutor, compile_steps
from newtriton.runtime.aten.patterns import FUSED_MAPS
from newtriton.runtime.aten.pointwise import Pointwise, _Loop
from newtriton.runtime.aten.rewriting import rewritten
from newtriton.runtime.backend import Context
from tests.tolerances import assert_close

RUN = Context(5, torch.float64, torch.device("cpu"))
SHAPE = (N, 3, 4)


def leaves() -> list[Node]:
    """Two whole values, and copies along leading, trailing and all axes."""
    x, y = ops.input_("x", SHAPE), ops.input_("y", SHAPE)
    channels = [ops.broadcast(ops.param(name, (4,)), SHAPE) for name in "ab"]
    rows = [ops.broadcast(ops.input_(name, (N, 3)), SHAPE, (2,)) for name in "cd"]
    return [x, y, *channels, *rows, ops.broadcast(ops.param("e", ()), SHAPE)]


def run(graph: Graph, seed: int = 0) -> tuple[dict[Node, torch.Tensor], dict[Node, torch.Tensor]]:
    """Returns the outputs of the executor, and those of every node by its own rule."""
    generator = torch.Generator().manual_seed(seed)
    feed = {
        n: torch.rand(concrete(n.shape, RUN.batch), generator=generator, dtype=torch.float64)
        for n in graph.nodes()
        if n.op in (Op.INPUT, Op.PARAM)
    }
    values = dict(feed)
    for node in graph.computed():
        (step,) = compile_steps(Graph("one", {"x": node}, frozenset(node.inputs)))
        values[node] = step.call(RUN, *(values[i] for i in step.reads))[0]
    return AtenExecutor(graph)(RUN, feed), values


def expressions(operands: int) -> st.SearchStrategy[Expr]:
    leaf = st.one_of(
        st.integers(0, operands - 1).map(var), st.sampled_from([-1.0, 2.0]).map(scalar.const)
    )
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.tuples(inner, inner).map(lambda ab: ab[0] + ab[1]),
            st.tuples(inner, inner, inner).map(lambda abc: scalar.mul(*abc)),
            inner.map(scalar.tanh),
            st.tuples(inner, inner).map(lambda ab: scalar.where(ab[0], ab[1], 0.0)),
        ),
        max_leaves=8,
    )


@settings(max_examples=40, deadline=None)
@example([scalar.where(var(0), var(0), 0.0)], (0, 1))  # PyTorch's relu takes one operand, not six
@given(
    st.lists(expressions(6), min_size=1, max_size=3),
    st.sampled_from([(0, 1), (2,), (0, 1, 2), (1,)]),
)
def test_values_stay(exprs: list[Expr], axes: tuple[int, ...]) -> None:
    operands = leaves()
    for expr in exprs:
        operands.insert(0, ops.map_(expr, *operands[:6]))
    outputs = {"map": operands[0], "sum": ops.reduce_sum(operands[0], axes)}
    found, expected = run(Graph("random", outputs))
    for name, node in outputs.items():
        assert_close(found[node], expected[node], name)


def test_a_function_that_has_been_computed_is_read() -> None:
    x, y = ops.input_("x", SHAPE), ops.input_("y", SHAPE)
    tanh, sigmoid = (
        ops.map_(scalar.tanh(var(0)), x),
        ops.map_(scalar.sigmoid(var(0) - var(1)), x, y),
    )
    slope = ops.map_(scalar.derivative(scalar.tanh(var(0)), 0) * var(1), x, y)
    other = ops.map_(scalar.sigmoid(var(1) - var(0)) * var(2), y, x, x)
    used = {"tanh": tanh, "sigmoid": sigmoid, "used": ops.multiply(tanh, y)}
    graph = Graph("all", {**used, "slope": slope, "other": other})
    new = rewritten(graph)
    assert {*new[slope].inputs} == {tanh, y} and new[slope]["expr"] in FUSED_MAPS
    assert {*new[other].inputs} == {sigmoid, x}
    found, expected = run(graph)
    for name, node in graph.outputs.items():
        assert_close(found[node], expected[node], name)
    taped = Graph("taped", {"used": used["used"], "slope": slope}, frozenset({tanh}))
    assert {*rewritten(taped)[slope].inputs} == {tanh, y}


def new_of(node: Node) -> Node:
    return rewritten(Graph("one", {"x": node}))[node]


def test_what_reads_only_copies_is_computed_before_they_are_copied() -> None:
    x, _, a, b, *_ = leaves()
    new = new_of(ops.map_(var(0) * var(1) * scalar.exp(var(2)), x, a, b))
    assert [i.op for i in new.inputs] == [Op.INPUT, Op.BROADCAST]
    assert new.inputs[1].inputs[0].shape == (4,)


def test_factors_that_do_not_vary_are_taken_out_of_sums() -> None:
    x, y, a, b, *_ = leaves()
    inner = ops.map_(var(0) * var(1), x, a)
    new = new_of(ops.reduce_sum(ops.map_(var(0) + 2.0 * var(1) * var(2), inner, y, b), (0, 1)))
    sums = [n.inputs[0] for n in topological([new]) if n.op is Op.REDUCE_SUM]
    assert new.op is Op.MAP
    assert set(sums) == {x, y}


def test_a_coefficient_stays_where_it_costs_nothing() -> None:
    x, _, a, *_ = leaves()
    node = ops.map_(var(0) - var(1), x, a)
    assert new_of(node) is node


def test_a_product_is_added_in_one_call() -> None:
    x, y, a, *_ = leaves()
    node = ops.map_(var(0) * var(1) + var(2), x, y, a)
    assert len(_Loop(Pointwise([node], [node]), RUN.batch).instructions) == 1


def test_the_gradient_of_a_norm_takes_two_passes() -> None:
    net = nt.Sequential(nt.Conv2d(4, 3), nt.BatchNorm2d(), nt.ReLU(), nt.Flatten(), nt.Linear(3))
    model = nt.compile(net, (2, 6, 6), nt.CrossEntropyLoss(), dtype=torch.float64)
    steps = AtenExecutor(model.programs[True].linearize.graph).steps
    passes = [s for s in steps if isinstance(s.call, Pointwise) and s.call.shape == (N, 4, 4, 4)]
    assert len(passes) == 4


def test_nothing_is_read_behind_given_nodes() -> None:
    x, _, a, b, *_ = leaves()
    inner = ops.map_(var(0) * var(1), x, a)
    outputs = {
        "sum": ops.reduce_sum(ops.map_(var(0) * var(1), inner, b), (0, 1)),
        "map": ops.map_(scalar.exp(var(1)) * var(0), inner, b),
    }
    given = frozenset({inner, b})
    new = rewritten(Graph("part", outputs, given))
    run = Graph("part", {name: new[node] for name, node in outputs.items()}, given)
    assert set(run.nodes()) & set(topological([x, a.inputs[0], b.inputs[0]])) == set()
