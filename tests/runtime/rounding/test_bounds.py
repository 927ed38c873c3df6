"""Every op has a bound of its error: float32 keeps to it, and errors of operands are in it."""

import pytest
import torch
from torch import Tensor

from newtriton.compiler.graph import ops, scalar
from newtriton.compiler.graph.ir import LEAVES, N, Node, Op
from newtriton.compiler.graph.scalar import var
from newtriton.runtime.aten.rules import ATEN
from newtriton.runtime.backend import Context
from newtriton.runtime.rounding.bounds import BOUNDS, Arithmetic, bounded

UNIT, BATCH = 2e-6, 5
CONTEXT = Context(BATCH, torch.float32, torch.device("cpu"))
ARITHMETIC = Arithmetic(CONTEXT._replace(dtype=torch.float64), UNIT)
CONV = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
POOL = {"kernel": (3, 3), "stride": (2, 2), "padding": (1, 1)}


def image(name: str = "x", size: int = 7, channels: int = 4) -> Node:
    return ops.input_(name, (N, size, size, channels))


def weight() -> Node:
    return ops.input_("w", (6, 3, 3, 4))


def gram(op: Op, **attributes: object) -> Node:
    scale = scalar.const(0.5)
    return ops.make(op, image(), groups=1, homogeneous=True, scale=scale, **attributes)


def index() -> Node:
    return ops.make(Op.ARGMAX_POOL, image(), **POOL, dilation=(1, 1))


MAXIMA = {**POOL, "dilation": (1, 1)}
CASES: dict[Op, Node] = {
    Op.MAP: ops.map_(scalar.exp(var(0)) * var(1) - var(0), image(), image("y")),
    Op.MATMUL: ops.matmul(ops.input_("x", (N, 40)), ops.input_("w", (40, 6))),
    Op.CONV: ops.make(Op.CONV, image(), weight(), ops.input_("b", (6,)), **CONV),
    Op.CONV_INPUT_GRAD: ops.make(
        Op.CONV_INPUT_GRAD, image("s", channels=6), weight(), **CONV, size=(7, 7)
    ),
    Op.CONV_WEIGHT_GRAD: ops.make(
        Op.CONV_WEIGHT_GRAD, image("s", channels=6), image(), **CONV, kernel=(3, 3)
    ),
    Op.REDUCE_SUM: ops.reduce_sum(image(), (0, 1)),
    Op.BROADCAST: ops.broadcast(ops.input_("b", (4,)), (N, 3, 4)),
    Op.RESHAPE: ops.reshape(image(), (N, 49, 4)),
    Op.TRANSPOSE: ops.transpose(image(), (3, 0, 2, 1)),
    Op.SLICE: ops.make(Op.SLICE, image(), axis=1, start=2, stop=5),
    Op.PAD: ops.make(Op.PAD, image(), axis=1, low=2, high=1),
    Op.CONCAT: ops.make(Op.CONCAT, image(), image("y"), axis=2),
    Op.AVG_POOL: ops.make(Op.AVG_POOL, image(), **POOL, count_include_pad=False),
    Op.AVG_UNPOOL: ops.make(
        Op.AVG_UNPOOL, image("s", size=4), **POOL, count_include_pad=True, size=(7, 7)
    ),
    Op.ARGMAX_POOL: index(),
    Op.GATHER_MAX: ops.make(Op.GATHER_MAX, image("y"), index(), **MAXIMA),
    Op.SCATTER_MAX: ops.make(Op.SCATTER_MAX, image("s", size=4), index(), **MAXIMA, size=(7, 7)),
    Op.GATHER_ROWS: ops.make(
        Op.GATHER_ROWS, ops.input_("table", (3, 4)), ops.input_("words", (N, 2), "int")
    ),
    Op.SCATTER_ROWS: ops.make(
        Op.SCATTER_ROWS, ops.input_("rows", (N, 2, 4)), ops.input_("words", (N, 2), "int"), size=3
    ),
    Op.ONE_HOT: ops.make(Op.ONE_HOT, ops.input_("labels", (N,), "int"), classes=3),
    Op.SAMPLE: ops.make(Op.SAMPLE, ops.input_("z", (N, 3)), ops.input_("u", (2, N))),
    Op.ROW_MAX: ops.row_max(ops.input_("z", (N, 3))),
    Op.LOG_SUM_EXP: ops.log_sum_exp(ops.input_("z", (N, 3))),
    Op.GRAM: gram(Op.GRAM),
    Op.PATCH_GRAM: gram(Op.PATCH_GRAM, kernel=(3, 3), **{k: CONV[k] for k in list(CONV)[:3]}),
    Op.SPECTRAL: ops.make(Op.SPECTRAL, ops.input_("a", (6, 6)), expr=scalar.exp(var(0))),
    Op.ALL_SUM: ops.all_sum(ops.input_("s", (6,))),
}

INDICES = {Op.ONE_HOT, Op.SAMPLE, Op.ARGMAX_POOL}  # what goes in or comes out is no number


def test_every_op_has_a_bound():
    assert set(BOUNDS) == set(Op) and set(CASES) == set(Op) - LEAVES


def leaves(node: Node) -> dict[Node, Tensor]:
    generator = torch.Generator().manual_seed(0)
    found = {}
    for n in ops_of(node):
        if n.op is Op.INPUT:
            shape = [BATCH if d is N else d for d in n.shape]
            x = torch.rand(shape, generator=generator)
            x = (3 * x).long() if n.type.kind == "int" else x if n["name"] == "u" else 2 * x - 1
            found[n] = x + x.mT if n["name"] == "a" else x
    return found


def ops_of(node: Node) -> list[Node]:
    return [node, *(n for x in node.inputs for n in ops_of(x))]


def in_float32(node: Node, known: dict[Node, Tensor]) -> Tensor:
    if node in known:
        return known[node]
    return ATEN[node.op](node)(CONTEXT, *(in_float32(x, known) for x in node.inputs))


@pytest.mark.parametrize("op", CASES)
def test_float32_keeps_to_the_bound(op: Op):
    node = CASES[op]
    known = leaves(node)
    value, error = bounded([node], known, ARITHMETIC)[node]
    assert torch.all((in_float32(node, known).double() - value).abs() <= error)


@pytest.mark.parametrize("op", [op for op in CASES if op not in INDICES])
def test_errors_of_operands_go_through_an_op(op: Op):
    """Operands are maps: half a unit there is within the bound afterwards."""
    node = CASES[op]
    known = leaves(node)
    floats = {x: known[x] for x in known if x.type.kind == "float" and x.shape != (2, N)}
    doubled = {x: ops.scale(x, 2.0) for x in floats}
    changed = ops.remake(node, tuple(doubled.get(x, x) for x in node.inputs))
    before = bounded([changed], known, ARITHMETIC)[changed]
    moved = {
        x: v * (1 + 0.5 * UNIT * torch.sign(torch.randn_like(v))).double()
        for x, v in floats.items()
    }
    after = bounded([changed], {**known, **moved}, ARITHMETIC)[changed].value
    assert torch.all((after - before.value).abs() <= before.error)


def test_a_sum_that_cancels_is_judged_by_its_terms():
    x = ops.input_("x", (N,))
    terms = torch.tensor([1.0, -1.0, 1e-9, 2.0, -2.0])
    value, error = bounded([ops.reduce_sum(x)], {x: terms}, ARITHMETIC)[ops.reduce_sum(x)]
    assert float(value) == pytest.approx(1e-9, rel=1e-6)
    assert float(error) == pytest.approx(6 * UNIT, rel=1e-6)


def test_values_from_memory_that_are_only_moved_are_exact():
    for op in (Op.BROADCAST, Op.TRANSPOSE, Op.CONCAT, Op.GATHER_MAX, Op.ROW_MAX, Op.ONE_HOT):
        node = CASES[op]
        assert bounded([node], leaves(node), ARITHMETIC)[node].exact


@pytest.mark.parametrize("gap", [1e-9, 1e-2])
def test_a_near_tie_of_a_pool_may_fall_either_way(gap: float):
    x = ops.input_("x", (N, 2, 2, 1))
    squared = ops.multiply(x, x)
    window = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0), "dilation": (1, 1)}
    place = ops.make(Op.ARGMAX_POOL, squared, **window)
    other = ops.input_("y", (N, 2, 2, 1))
    chosen = ops.make(Op.GATHER_MAX, other, place, **window)
    images = (
        torch.tensor([0.1, 1.0, 0.2, 1.0 + gap], dtype=torch.float64)
        .view(1, 2, 2, 1)
        .expand(5, 2, 2, 1)
    )
    values = torch.tensor([0.0, 3.0, 0.0, 8.0]).view(1, 2, 2, 1).expand(5, 2, 2, 1)
    found = bounded([chosen], {x: images, other: values}, ARITHMETIC)
    tied = gap < UNIT
    assert torch.all(found[place].spread == float(tied)) and torch.all(found[place].value == 3)
    assert torch.all(found[chosen].spread >= 5.0 if tied else found[chosen].spread == 0.0)
