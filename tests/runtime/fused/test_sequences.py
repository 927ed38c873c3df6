"""Ops on sequences, stacks of matrices and tables as fused kernels: against PyTorch in float64."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from newtriton.compiler.graph import ops, scalar
from newtriton.compiler.graph.ir import LEAVES, Graph, N, Node, Op, Shape, concrete, topological
from newtriton.compiler.graph.scalar import var
from newtriton.compiler.lowering import elements
from newtriton.runtime.aten.executor import AtenExecutor
from newtriton.runtime.backend import Context
from newtriton.runtime.fused.executor import FusedExecutor
from newtriton.runtime.fused.launch import VendorLaunch
from newtriton.runtime.fused.selection import Selection
from newtriton.runtime.fused.settings import Settings

from ...tolerances import LIMITS, relative_error

pytestmark = [
    pytest.mark.interpreter,
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # masked elements, in NumPy
    pytest.mark.usefixtures("poisoned"),
]
BATCH, ROWS = 3, 7  # samples, and rows of tables


def random(nodes: list[Node]) -> dict[Node, Tensor]:
    """Values of leaves; integers are rows of a table."""
    generator = torch.Generator().manual_seed(0)
    leaves = [n for n in topological(nodes) if n.op in LEAVES and n.op is not Op.CONST]
    return {
        n: torch.randn(concrete(n.shape, BATCH), generator=generator)
        if n.type.kind == "float"
        else torch.randint(0, ROWS, concrete(n.shape, BATCH), generator=generator)
        for n in leaves
    }


def run(outputs: Mapping[str, Node], feed: Mapping[Node, Tensor], precision: str = "ieee"):
    """The values of nodes by fused kernels, and their executor."""
    settings = Settings(precision, "fused", interpreted=True, elements=256)
    executor = FusedExecutor(Graph("sequences", outputs), (), Selection(settings))
    values = executor(Context(BATCH, torch.float32, torch.device("cpu")), feed)
    return {name: values[n] for name, n in outputs.items()}, executor.plan(BATCH)


def compare(*nodes: Node, feed: Mapping[Node, Tensor] | None = None, vendor: int = 0) -> None:
    """Compares nodes, and counts the launches of the vendor's operators."""
    outputs = {str(i): n for i, n in enumerate(nodes)}
    feed = random(list(nodes)) if feed is None else feed
    found, plan = run(outputs, feed)
    wide = {n: x.double() if x.is_floating_point() else x for n, x in feed.items()}
    context = Context(BATCH, torch.float64, torch.device("cpu"))
    expected = AtenExecutor(Graph("sequences", outputs))(context, wide)
    for name, node in outputs.items():
        error = relative_error(found[name].double(), expected[node])
        assert found[name].shape == expected[node].shape and error < LIMITS["ieee"], repr(node)
    assert sum(isinstance(launch, VendorLaunch) for launch in plan.launches) == vendor


def leaf(name: str, *shape: object, kind: str = "float") -> Node:
    return ops.input_(name, shape, kind)


# --- products of stacks ---------------------------------------------------------------------------

LEADS: list[tuple[Shape, Shape]] = [
    ((N, 2), (N, 2)),
    ((2, N), (2, N)),
    ((2, N, 2), (N, 2)),
    ((N, 2), (2, N, 2)),
    ((N, 2), (2,)),
    ((2,), (N, 2)),
    ((N, 2), ()),
    ((), (N, 2)),
    ((N * 2,), (N * 2,)),
    ((N,), ()),
]


@pytest.mark.parametrize("leads", LEADS, ids=str)
@pytest.mark.parametrize(("ta", "tb"), [*itertools.product((False, True), repeat=2)])
def test_stacks_of_matrices_are_multiplied(leads: tuple[Shape, Shape], ta: bool, tb: bool):
    m, k, n = 5, 19, 33
    x = leaf("x", *leads[0], *((k, m) if ta else (m, k)))
    y = leaf("y", *leads[1], *((n, k) if tb else (k, n)))
    compare(ops.matmul(x, y, ta=ta, tb=tb), ops.matmul(x, y, leaf("b", n), ta=ta, tb=tb))


@pytest.mark.parametrize("sizes", [(1, 1, 1), (1, 17, 65), (65, 3, 1), (70, 40, 35)], ids=str)
def test_stacks_of_odd_sizes(sizes: tuple[int, int, int]):
    m, k, n = sizes
    x, y = leaf("x", N, 2, m, k), leaf("y", N, 2, n, k)
    s = ops.matmul(x, y, tb=True)
    squares = ops.reduce_sum(ops.multiply(s, s))  # tiles give parts of it
    compare(ops.map_(scalar.tanh(var(0)), s), squares, ops.reduce_sum(s, (0, 1, 2)))


def test_the_batch_may_be_the_rows_of_matrices():
    x, y = leaf("x", N, 6), leaf("y", 5, 6)
    compare(ops.matmul(leaf("z", 4, N * 3, 6), y, tb=True))
    compare(ops.matmul(leaf("t", 6, N), y, ta=True, tb=True))
    compare(ops.matmul(leaf("t", 6, N), leaf("w", 6, 5), ta=True))
    compare(ops.matmul(leaf("g", N * 3, 5), leaf("h", N * 3, 6), ta=True))
    # samples along the columns, or summed over in a row: the vendor's
    compare(ops.matmul(y, x, tb=True), vendor=1)
    compare(ops.matmul(leaf("u", 5, N), x), vendor=1)


@pytest.mark.parametrize("precision", ["ieee", "tf32"])
def test_tangents_of_scores_are_sums_on_one_accumulator(precision: str):
    q, k, q_dot, k_dot = (leaf(name, N, 2, 5, 18) for name in ("q", "k", "q_dot", "k_dot"))
    s_dot = ops.total([ops.matmul(q_dot, k, tb=True), ops.matmul(q, k_dot, tb=True)])
    outputs = {"s_dot": s_dot, "second": ops.scale(ops.matmul(q_dot, k_dot, tb=True), 2.0)}
    feed = random([*outputs.values()])
    found, plan = run(outputs, feed, precision)
    assert [len(k.anchors) for k in plan.schedule.kernels if k.anchors] == [3]
    a, b, c, d = (feed[n].double() for n in (q, k, q_dot, k_dot))
    expected = {"s_dot": c @ b.mT + a @ d.mT, "second": 2.0 * c @ d.mT}
    for name, value in expected.items():
        assert relative_error(found[name].double(), value) < LIMITS[precision]


def test_a_layer_on_sequences_and_its_adjoints_read_them_as_they_lie():
    x, w, b = leaf("x", N, 5, 18), ops.param("w", (17, 18)), ops.param("b", (17,))
    a = ops.map_(scalar.tanh(var(0)), ops.matmul(x, w, b, tb=True))
    rows = ops.reshape(a, (N * 5, 17))
    g = ops.map_(var(0) * var(0), rows)
    w_bar = ops.matmul(g, ops.reshape(x, (N * 5, 18)), ta=True)
    nodes = ops.reshape(g, (N, 5, 17)), w_bar, ops.reduce_sum(g, (0,))
    compare(*nodes)
    _, plan = run({str(i): n for i, n in enumerate(nodes)}, random(list(nodes)))
    assert "map map" in str(plan.schedule)  # one kernel for N×5×17 and N·5×17


# --- views, sums and maxima -----------------------------------------------------------------------

SHAPES: list[Shape] = [(N, 3, 4), (3, N, 4), (3, 4, N), (N * 2, 5), (5, N * 2), (2, 3, N, 4)]
ADDED = var(0) + 2.0


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sums_over_any_axes(shape: Shape):
    x = leaf("x", *shape)
    every = range(len(shape))
    axes = [a for n in every for a in itertools.combinations(every, n + 1)]
    compare(*(ops.reduce_sum(ops.map_(ADDED, x), a) for a in axes))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_views_of_any_axes(shape: Shape):
    x = ops.map_(ADDED, leaf("x", *shape))
    orders = list(itertools.permutations(range(len(shape))))[1::3]
    turned = [ops.map_(var(0) * var(0), ops.transpose(x, order)) for order in orders]
    spread = [
        ops.map_(var(0) * var(1), ops.broadcast(ops.reduce_sum(x, (a,)), shape, (a,)), x)
        for a in range(len(shape))
    ]
    compare(*turned, *spread)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((N, 4, 6), (N * 4, 6)), ((N * 4, 6), (N, 4, 2, 3)), ((4, N, 6), (N * 4, 6)),
        ((N, 4, 6), (N, 6, 4)), ((N, 24), (N * 8, 3)), ((N, 2, 1, 6), (N * 2, 3, 2)),
        ((N * 4, 1), (N, 4)), ((12,), (3, 4)),
    ],
    ids=str,
)  # fmt: skip
def test_reshapes_read_the_same_elements(old: Shape, new: Shape):
    x, y = leaf("x", *old), leaf("y", *new)
    moved = ops.reshape(ops.map_(ADDED, x), new)
    back = ops.transpose(ops.map_(var(0) * var(1), moved, y), range(len(new))[::-1])
    compare(ops.map_(var(0) * var(1), moved, y), ops.scale(back, 3.0))


@pytest.mark.parametrize("shape", [(N, 5), (N, 2, 3, 5), (2, N, 9), (N * 3, 1), (2, 3, 4)], ids=str)
def test_softmax_over_rows_of_any_rank(shape: Shape):
    x, last = leaf("x", *shape), (len(shape) - 1,)
    peak = ops.broadcast(ops.row_max(x, stabiliser=True), shape, last)
    e = ops.map_(scalar.exp(var(0) - var(1)), x, peak)
    compare(ops.map_(var(0) / var(1), e, ops.broadcast(ops.reduce_sum(e, last), shape, last)))
    compare(ops.softmax(x), ops.log_sum_exp(ops.scale(x, 100.0)))


@pytest.mark.parametrize("length", [31, 33, 1200])
def test_rows_that_are_too_long_for_a_tile_are_cut(monkeypatch: pytest.MonkeyPatch, length: int):
    monkeypatch.setattr(elements, "LONGEST_ROW", 32)
    x = leaf("x", N, 2, length)
    total, peak = ops.reduce_sum(ops.map_(ADDED, x), (2,)), ops.row_max(x)
    compare(total, peak, ops.log_sum_exp(x), ops.reduce_sum(x, (0, 2)), ops.reduce_sum(x, (1, 2)))


# --- integers and tables --------------------------------------------------------------------------


def test_integers_are_numbers_in_maps():
    words, labels = leaf("w", N, 5, kind="int"), leaf("y", N, 5, kind="int")
    squares = ops.map_(var(0) * var(0) * scalar.exp(-1.0 * var(1)), words, labels)
    kept = ops.map_(scalar.where(var(1), var(0), -1.0), leaf("x", N, 5), labels)
    compare(squares, kept, ops.scale(ops.transpose(words, (1, 0)), 0.5))


@pytest.mark.parametrize("index", [(N,), (N, 5), (5, N), (N * 2,), (4,)], ids=str)
@pytest.mark.parametrize("lead", [(), (2,)], ids=["one", "copies"])
def test_rows_of_tables_and_their_adjoints(index: Shape, lead: Shape):
    table, words = leaf("t", *lead, ROWS, 6), leaf("w", *index, kind="int")
    rows = ops.make(Op.GATHER_ROWS, table, words)
    compare(rows, ops.map_(scalar.tanh(var(0)), rows), ops.reduce_sum(rows))
    ct = leaf("ct", *lead, *index, 6)
    added = ops.make(Op.SCATTER_ROWS, ct, words, size=ROWS)
    compare(ops.scale(added, 2.0))
    of_a_map = ops.make(Op.SCATTER_ROWS, ops.map_(ADDED, ct), words, size=ROWS)
    compare(of_a_map)


def test_rows_are_looked_up_by_whoever_reads_them():
    table, words = ops.param("t", (ROWS, 6)), leaf("w", N, 5, kind="int")
    rows = ops.make(Op.GATHER_ROWS, table, words)
    s = ops.total([rows, ops.broadcast(ops.param("p", (5, 6)), rows.shape)])
    _, plan = run({"s": s}, random([s]))
    assert len(plan.launches) == 1
    compare(ops.matmul(s, ops.param("w", (4, 6)), tb=True))
    turned = ops.make(Op.GATHER_ROWS, table, ops.transpose(words, (1, 0)))
    compare(ops.reduce_sum(ops.scale(turned, 2.0), (0,)))


def test_a_row_that_a_table_does_not_have_is_not_read():
    rows = ops.make(Op.GATHER_ROWS, ops.param("t", (ROWS, 2)), leaf("w", N, kind="int"))
    feed = random([rows])
    feed[rows.inputs[1]] = torch.tensor([0, ROWS, -1])
    found, _ = run({"rows": rows}, feed)
    assert torch.equal(found["rows"][0], feed[rows.inputs[0]][0])
    assert found["rows"][1:].isnan().all()


def test_adjoints_of_rows_are_bitwise_equal_in_two_runs_with_a_word_nearly_everywhere():
    words = leaf("w", N, 200, kind="int")
    added = ops.make(Op.SCATTER_ROWS, leaf("ct", N, 200, 3), words, size=ROWS)
    feed = random([added])
    feed[words] = feed[words].where(torch.rand(BATCH, 200) < 0.1, 2)
    compare(added, feed=feed)
    first, second = (run({"a": added}, feed)[0]["a"] for _ in range(2))
    assert torch.equal(first, second)


def test_what_is_made_of_added_rows_is_computed_where_they_are():
    added = ops.make(Op.SCATTER_ROWS, leaf("ct", N, 5, 6), leaf("w", N, 5, kind="int"), size=ROWS)
    squares = ops.map_(var(0) * var(0) + var(1), added, ops.param("v", (ROWS, 6)))
    feed = random([squares])
    _, plan = run({"squares": squares}, feed)
    assert len(plan.launches) == 1 and len(plan.launches[0].kernels) == 1
    compare(squares, ops.reduce_sum(squares, (0,)), ops.reduce_sum(added), feed=feed)


def test_rows_that_a_table_does_not_have_are_not_added():
    words = leaf("w", N, 3, kind="int")
    added = ops.make(Op.SCATTER_ROWS, leaf("ct", N, 3, 2), words, size=ROWS)
    feed = random([added])
    feed[words] = torch.tensor([[0, ROWS, -1], [2**32, 2, 2], [0, 0, -(2**40)]])
    found, _ = run({"added": added}, feed)
    inside = (feed[words] >= 0) & (feed[words] < ROWS)
    expected = torch.zeros(ROWS, 2)
    expected.index_add_(0, feed[words][inside], feed[added.inputs[0]][inside])
    torch.testing.assert_close(found["added"], expected)


def test_labels_and_draws_of_every_position():
    y, z = leaf("y", N, 5, kind="int"), leaf("z", N * 5, ROWS)
    hot = ops.make(Op.ONE_HOT, y, classes=ROWS)
    compare(ops.scale(hot, 2.0), ops.multiply(z, ops.reshape(hot, (N * 5, ROWS))))
    drawn = ops.make(Op.SAMPLE, z, leaf("u", 2, N * 5))
    feed = random([drawn])
    feed[drawn.inputs[1]] = torch.rand(2, BATCH * 5, generator=torch.Generator().manual_seed(1))
    compare(drawn, ops.scale(ops.make(Op.ONE_HOT, drawn, classes=ROWS), 3.0), feed=feed)


def test_sines_and_powers():
    x = leaf("x", N, 5)
    positive = ops.map_(1.0 + var(0) * var(0), x)
    compare(
        ops.map_(scalar.sin(var(0)) * scalar.cos(2.0 * var(0)), x),
        ops.map_(scalar.power(var(0), 1.7) + scalar.power(var(0), -0.3), positive),
    )
