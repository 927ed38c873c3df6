"""Element rules, run by the reader that looks and by the reader that writes."""

from __future__ import annotations

import pytest

from newtriton.compiler.graph import ops, scalar
from newtriton.compiler.graph.errors import MissingRule
from newtriton.compiler.graph.ir import LEAVES, Graph, N, Node, Op, made_at, show, topological
from newtriton.compiler.graph.scalar import var
from newtriton.compiler.lowering import elements
from newtriton.compiler.lowering.elements import ELEMENTS, SCALARS, Reduction, in_stages, reduction
from newtriton.compiler.lowering.kernel import ALONE, ANCHORS
from newtriton.compiler.lowering.printing import triton
from newtriton.compiler.lowering.reading import Reading
from newtriton.compiler.lowering.schedule import schedule
from newtriton.compiler.lowering.space import space_of

x = ops.input_("x", (N, 6, 4))


def read(node: Node) -> list[tuple[Node, list[str]]]:
    """What the element of a node is computed from, and where."""
    reading = Reading(Graph("one", {"out": node}), 1, lambda *_: ALONE)
    return [(n, [*map(triton, at)]) for n, at in reading.sources(node, space_of(node))]


def test_every_op_has_an_element_or_a_kernel_or_is_given():
    assert set(ELEMENTS) | ANCHORS | LEAVES == set(Op)
    assert not set(ELEMENTS) & (ANCHORS | LEAVES)


def test_every_scalar_operation_can_be_written():
    derivatives = set(scalar._FOLD) | {"add", "mul", "where", "power", "batch"}
    assert set(SCALARS) == derivatives | {"tf32", "bf16"}


def test_views_read_at_other_places():
    assert read(ops.transpose(x, (2, 0, 1))) == [(x, ["a1", "a2", "a0"])]
    assert read(ops.make(Op.SLICE, x, axis=1, start=2, stop=5)) == [(x, ["a0", "a1 + 2", "a2"])]
    assert read(ops.make(Op.PAD, x, axis=1, low=2, high=1)) == [(x, ["a0", "a1 - 2", "a2"])]
    row = ops.input_("row", (4,))
    assert read(ops.broadcast(row, (N, 6, 4), (0, 1))) == [(row, ["a2"])]
    flat = read(ops.reshape(x, (N, 24)))
    (at,) = [at for _, at in flat]
    assert at == ["a0", "a1 // 4", "a1 % 4"]


def test_a_window_is_read_whole():
    image = ops.input_("image", (N, 5, 6, 4))
    window = {"kernel": (3, 2), "stride": (2, 1), "padding": (1, 0), "dilation": (1, 1)}
    places = read(ops.make(Op.ARGMAX_POOL, image, **window))
    assert len(places) == 6 and {at[3] for _, at in places} == {"a3"}
    assert places[0][1][1] == "a1 * 2 - 1"


def test_sums_are_taken_four_ways():
    big = ops.input_("big", (N, elements.LONGEST_ROW + 1))
    ways = {
        Reduction.ALL: ops.reduce_sum(x),
        Reduction.COLUMNS: ops.reduce_sum(x, (0, 1)),
        Reduction.ROW: ops.reduce_sum(x, (2,)),
        Reduction.LOOP: ops.reduce_sum(x, (1,)),
    }
    assert {reduction(node): node for node in ways.values()} == ways
    assert reduction(ops.reduce_sum(big, (1,))) is Reduction.LOOP


def test_sums_over_the_last_axes_come_first():
    image = ops.input_("image", (N, 6, 5, 4))

    def stages(node: Node) -> list[str]:
        found = [n for n in topological([in_stages(node)]) if n.op is not Op.INPUT]
        return [f"{n.op.value} {show(n.shape)}" for n in found]

    assert stages(ops.reduce_sum(image, (2, 3))) == ["reshape N×6×20", "reduce_sum N×6"]
    assert stages(ops.reduce_sum(image, (0, 3))) == ["reduce_sum N×6×5", "reduce_sum 6×5"]
    assert stages(ops.reduce_sum(image, (0, 2, 3)))[1:] == ["reduce_sum N×6", "reduce_sum 6"]
    for axes in ((0, 1, 2), (1,), (3,), (0, 1, 2, 3)):
        assert stages(ops.reduce_sum(image, axes)) == stages(ops.reduce_sum(image, axes))[:1]
    samples = ops.input_("samples", (6, N))
    assert stages(ops.reduce_sum(samples, (1,))) == ["reduce_sum 6"]


def test_a_missing_rule_names_the_op_its_types_and_its_place(monkeypatch: pytest.MonkeyPatch):
    with made_at("layer 3 (Tanh)"):
        node = ops.map_(scalar.tanh(var(0)), ops.input_("missing", (N, 3)))
    monkeypatch.delitem(ELEMENTS, Op.MAP)
    with pytest.raises(MissingRule, match=r"element rule for map\(N×3\) → N×3, made at layer 3"):
        schedule(Graph("missing", {"out": node}))
