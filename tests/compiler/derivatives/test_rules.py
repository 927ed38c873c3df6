"""Every op rule in float64: jvp by differences, transpose by ⟨Jv, u⟩ = ⟨v, Jᵀu⟩, d² by two jvps."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from newtriton.compiler.derivatives.copies import COPIES, copies
from newtriton.compiler.derivatives.jvp import JVP, jvp
from newtriton.compiler.derivatives.quadratic import SECOND
from newtriton.compiler.derivatives.transpose import TRANSPOSE, vjp
from newtriton.compiler.graph import ops, scalar
from newtriton.compiler.graph.cost import FLOPS
from newtriton.compiler.graph.errors import MissingRule, ShapeError
from newtriton.compiler.graph.ir import LEAVES, Graph, N, Node, Op, concrete
from newtriton.compiler.graph.ops import TYPE
from newtriton.compiler.graph.scalar import var
from newtriton.compiler.graph.verify import verify
from newtriton.compiler.lowering.elements import ELEMENTS
from newtriton.compiler.lowering.kernel import ANCHORS
from newtriton.runtime.aten.executor import AtenExecutor
from newtriton.runtime.aten.rules import ATEN
from newtriton.runtime.backend import Context
from tests.tolerances import assert_close

BATCH = 3
STATISTICS = {Op.GRAM, Op.PATCH_GRAM, Op.SPECTRAL}  # programs end in them: they have no derivatives


def evaluate(nodes: Sequence[Node], feed: dict[Node, Tensor]) -> list[Tensor]:
    """Returns the values of nodes in float64."""
    graph = Graph("test", {str(i): n for i, n in enumerate(nodes)})
    values = AtenExecutor(graph)(Context(BATCH, torch.float64, torch.device("cpu")), feed)
    return [values[n] for n in nodes]


def image(name: str, *shape: int) -> Node:
    return ops.input_(name, (N, *shape))


WINDOW = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2}
POOL = {"kernel": (3, 2), "stride": (2, 1), "padding": (1, 0), "dilation": (1, 1)}
AVERAGE = {"kernel": (3, 2), "stride": (2, 1), "padding": (1, 1)}


def cases() -> dict[str, Node]:
    """Returns a node of every differentiable op by name; its operands are inputs."""
    x, y = image("x", 4), image("y", 4)
    a, w = image("a", 5, 6, 4), ops.input_("w", (6, 3, 2, 2))
    conv = ops.make(Op.CONV, a, w, ops.input_("b", (6,)), **WINDOW)
    g = ops.input_("g", conv.shape)
    index = ops.make(Op.ARGMAX_POOL, a, **POOL)
    pooled = ops.make(Op.GATHER_MAX, a, index, **POOL)
    ct = ops.input_("ct", pooled.shape)
    average = ops.make(Op.AVG_POOL, a, **AVERAGE, count_include_pad=False)
    average_ct = ops.input_("u", average.shape)
    words = ops.input_("words", (N, 2), "int")
    expr = scalar.sigmoid(var(0)) * var(1) + scalar.exp(var(1) * 0.3) / (2.0 + var(0) * var(0))
    return {
        "map": ops.map_(expr, x, y),
        "matmul": ops.matmul(x, ops.input_("m", (5, 4)), ops.input_("c", (5,)), tb=True),
        "matmul_ta": ops.matmul(x, y, ta=True),
        "matmul_both": ops.matmul(
            ops.input_("p", (4, 2)), ops.input_("q", (5, 4)), ta=True, tb=True
        ),
        "conv": conv,
        "conv_input_grad": ops.make(Op.CONV_INPUT_GRAD, g, w, size=(5, 6), **WINDOW),
        "conv_weight_grad": ops.make(Op.CONV_WEIGHT_GRAD, g, a, kernel=(3, 2), **WINDOW),
        "reduce_sum": ops.reduce_sum(a, (0, 2)),
        "broadcast": ops.broadcast(ops.input_("r", (4,)), (N, 4, 3), (0, 2)),
        "reshape": ops.reshape(a, (N, 120)),
        "transpose": ops.transpose(a, (2, 0, 3, 1)),
        "slice": ops.make(Op.SLICE, a, axis=2, start=1, stop=4),
        "pad": ops.make(Op.PAD, a, axis=1, low=2, high=1),
        "concat": ops.make(Op.CONCAT, x, ops.input_("t", (N, 2)), y, axis=1),
        "avg_pool": average,
        "avg_unpool": ops.make(
            Op.AVG_UNPOOL, average_ct, size=(5, 6), **AVERAGE, count_include_pad=False
        ),
        "gather_max": pooled,
        "scatter_max": ops.make(Op.SCATTER_MAX, ct, index, size=(5, 6), **POOL),
        "matmul_tokens": ops.matmul(image("h", 3, 4), ops.input_("o", (5, 4)), tb=True),
        "matmul_lead": ops.matmul(image("q", 2, 5, 4), image("k", 2, 3, 4), tb=True),
        "matmul_lead_left": ops.matmul(
            ops.input_("l", (3, 2, 4, 5)), ops.input_("r", (2, 4, 6)), ta=True
        ),
        "matmul_lead_right": ops.matmul(
            ops.input_("r", (2, 4, 6)), ops.input_("l", (3, 2, 4, 5)), ta=True
        ),
        "gather_rows": ops.make(Op.GATHER_ROWS, ops.input_("table", (4, 3)), words),
        "scatter_rows": ops.make(Op.SCATTER_ROWS, image("rows", 2, 3), words, size=4),
        "row_max": ops.row_max(image("z", 2, 5)),
        "log_sum_exp": ops.log_sum_exp(image("z", 2, 5)),
        "all_sum": ops.all_sum(ops.input_("u", (4,))),
        "flattened": ops.reshape(image("s", 2, 5), (N * 2, 5)),
        "waves": ops.map_(
            scalar.sin(var(0)) * scalar.cos(var(1)) + scalar.power(1.0 + var(0) * var(0), 1.5), x, y
        ),
    }


CASES = cases()


def leaves(node: Node) -> list[Node]:
    return [n for n in Graph("leaves", {"x": node}).nodes() if n.op is Op.INPUT]


def point(nodes: Sequence[Node], seed: int) -> dict[Node, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    words = torch.arange(12) * 7 % 4
    return {
        n: torch.randn(concrete(n.shape, BATCH), generator=generator, dtype=torch.float64)
        if n.type.kind == "float"
        else words[: n.type.numel(BATCH)].view(concrete(n.shape, BATCH))
        for n in nodes
    }


@pytest.mark.parametrize("name", sorted(CASES))
def test_jvp_is_the_central_difference(name: str) -> None:
    node = CASES[name]
    moving = [
        x
        for x in leaves(node)
        if x.type.kind == "float" and not (name == "scatter_max" and x["name"] == "a")
    ]
    feed, step = point(leaves(node), 0), point(moving, 1)
    dots = {x: ops.input_(f"{x['name']}_dot", x.shape) for x in moving}
    y_dot = jvp([node], dots)[node]
    assert y_dot is not None
    verify(Graph("jvp", {"y": y_dot}))
    eps = 1e-5
    (value,) = evaluate([y_dot], feed | {dots[x]: step[x] for x in moving})
    (up,) = evaluate([node], {**feed, **{x: feed[x] + eps * step[x] for x in moving}})
    (down,) = evaluate([node], {**feed, **{x: feed[x] - eps * step[x] for x in moving}})
    difference = (up - down) / (2 * eps)
    assert (value - difference).norm() <= 1e-8 * (1 + difference.norm())


@pytest.mark.parametrize("name", sorted(CASES))
def test_transpose_satisfies_the_inner_product_identity(name: str) -> None:
    node = CASES[name]
    for x in leaves(node):
        x_dot, ct = ops.input_("x_dot", x.shape), ops.input_("y_bar", node.shape)
        y_dot, x_bar = jvp([node], {x: x_dot})[node], vjp({node: ct}, [x]).get(x)
        if y_dot is None:
            assert x_bar is None
            continue
        assert x_bar is not None
        assert x_bar.type == x.type
        feed = point([*leaves(node), x_dot, ct], 2)
        left, right = evaluate([ops.dot(y_dot, ct), ops.dot(x_dot, x_bar)], feed)
        assert_close(left, right, str(x))


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_second_differential_is_the_jvp_of_the_jvp(name: str) -> None:
    node = CASES[name]
    xs = node.inputs
    moving = [x for x in xs if x.op is Op.INPUT and x.type.kind == "float"]
    u = {x: ops.input_(f"{x['name']}_u", x.shape) for x in moving}
    v = {x: ops.input_(f"{x['name']}_v", x.shape) for x in moving}
    first = jvp([node], u)[node]
    assert first is not None
    twice = jvp([first], v)[first]
    second = SECOND[node.op](node, [u.get(x) for x in xs], [v.get(x) for x in xs])
    if twice is None:
        assert second is None
        return
    assert second is not None
    feed = point([*leaves(node), *u.values(), *v.values()], 3)
    assert_close(*evaluate([second, twice], feed))


@pytest.mark.parametrize("name", sorted(CASES))
def test_copies_are_the_op_applied_to_each(name: str) -> None:
    node, count = CASES[name], 2
    x = node.inputs[0]
    if node.op is Op.CONV_WEIGHT_GRAD or x.op is not Op.INPUT:
        return
    repeated = ops.input_("copies", (count, *x.shape))
    result = copies([node], {x: repeated}, count)[node]
    verify(Graph("copies", {"y": result}))
    feed = point([*leaves(node), repeated], 4)
    (together,) = evaluate([result], feed)
    apart = [evaluate([node], {**feed, x: feed[repeated][i]})[0] for i in range(count)]
    assert_close(together, torch.stack(apart))


def test_the_adjoint_of_weights_is_one_product_over_the_positions_of_all_samples() -> None:
    node = CASES["matmul_tokens"]
    _, w = node.inputs
    w_bar = vjp({node: ops.input_("ct", node.shape)}, [w])[w]
    assert w_bar.op is Op.MATMUL and [i.shape[0] for i in w_bar.inputs] == [N * 3, N * 3]


def test_no_table_lacks_an_op() -> None:
    every = set(Op)
    assert set(TYPE) == set(FLOPS) == every
    assert set(JVP) == set(SECOND) == every - STATISTICS
    assert set(TRANSPOSE) == every - STATISTICS - LEAVES
    assert set(COPIES) == every - STATISTICS - LEAVES - {Op.CONV_WEIGHT_GRAD}
    assert set(ATEN) == every - LEAVES
    assert set(ELEMENTS) == every - LEAVES - ANCHORS  # contractions and Grams have kernels


def test_a_missing_rule_names_the_op_its_types_and_its_place() -> None:
    gram = ops.make(Op.GRAM, image("x", 4), groups=1, homogeneous=False, scale=scalar.ONE)
    with pytest.raises(MissingRule, match=r"no jvp rule for gram\(N×4\) → 4×4"):
        jvp([gram], {gram.inputs[0]: image("v", 4)})


def test_sampling_inverts_the_cumulative_distribution() -> None:
    z, u = image("z", 3), ops.input_("u", (2, N))
    logits = torch.log(torch.tensor([[0.2, 0.3, 0.5]] * BATCH, dtype=torch.float64))
    uniforms = torch.tensor([[0.0, 0.19, 0.21], [0.49, 0.51, 0.999]], dtype=torch.float64)
    (drawn,) = evaluate([ops.make(Op.SAMPLE, z, u)], {z: logits, u: uniforms})
    assert drawn.tolist() == [[0, 0, 1], [1, 2, 2]]


def test_a_function_of_eigenvalues() -> None:
    x = ops.input_("x", (N, 3, 3))
    positive = ops.make(Op.SPECTRAL, x, expr=scalar.where(var(0), var(0), 0.0))
    assert positive.type == x.type
    generator = torch.Generator().manual_seed(0)
    given = torch.randn(BATCH, 3, 3, generator=generator, dtype=torch.float64)
    given = given + given.mT
    given[1] = torch.diag(torch.tensor([2.0, -3.0, 0.0]))
    given[2, 0, 0] = torch.nan
    (value,) = evaluate([positive], {x: given})
    values, vectors = torch.linalg.eigh(given[0])
    assert_close(value[0], vectors @ torch.diag(values.clamp(min=0)) @ vectors.mT)
    assert_close(value[1], torch.diag(torch.tensor([2.0, 0.0, 0.0]).double()))
    assert value[2].isnan().all()  # of that matrix alone
    with pytest.raises(ShapeError, match="symmetric matrices"):
        ops.make(Op.SPECTRAL, image("r", 3, 4), expr=scalar.ONE)


def test_rows_and_labels() -> None:
    y, z = ops.input_("y", (N,), "int"), image("z", 3)
    hot, top, total = ops.make(Op.ONE_HOT, y, classes=3), ops.row_max(z), ops.log_sum_exp(z)
    logits = torch.tensor([[1.0, 5.0, 2.0]] * BATCH, dtype=torch.float64)
    feed = {y: torch.tensor([2, 0, 1]), z: logits}
    one_hot, largest, log_sum_exp = evaluate([hot, top, total], feed)
    assert one_hot.tolist() == torch.eye(3)[[2, 0, 1]].tolist()
    assert largest.tolist() == [5.0] * BATCH
    assert_close(log_sum_exp, logits.logsumexp(1))


def test_a_stabiliser_has_no_derivative_and_ties_share_that_of_a_maximum() -> None:
    z, z_dot, ct = image("z", 3), image("z_dot", 3), ops.input_("ct", (N,))
    assert (
        jvp([ops.row_max(z, stabiliser=True)], {z: z_dot})[ops.row_max(z, stabiliser=True)] is None
    )
    top = ops.row_max(z)
    x_bar = vjp({top: ct}, [z])[z]
    rows = torch.tensor([[1.0, 5.0, 2.0], [3.0, 3.0, 1.0], [2.0, 2.0, 2.0]], dtype=torch.float64)
    rows.requires_grad_()
    weights = torch.arange(1.0, 4.0, dtype=torch.float64)
    (expected,) = torch.autograd.grad((rows.amax(1) * weights).sum(), rows)
    (found,) = evaluate([x_bar], {z: rows.detach(), ct: weights})
    assert_close(found, expected)


def test_a_table_may_have_copies_and_its_rows_come_in_any_shape() -> None:
    table, words = ops.input_("t", (2, 4, 3)), ops.input_("words", (N, 5), "int")
    assert ops.make(Op.GATHER_ROWS, table, words).shape == (2, N, 5, 3)
    with pytest.raises(ShapeError, match="gather_rows"):
        ops.make(Op.GATHER_ROWS, table, image("x", 5))
