"""The passes from a program to launches: every graph between them is valid."""

import re
from collections.abc import Sequence

import pytest

import newtriton as nt
from newtriton.compiler.graph import ops, scalar
from newtriton.compiler.graph.ir import Graph, N, Node, Op
from newtriton.compiler.graph.verify import verify
from newtriton.compiler.lowering.precision import is_rounded
from newtriton.compiler.vectors import inner_products, iteration
from newtriton.runtime.fused import pipeline
from newtriton.runtime.fused.executor import FusedExecutor
from newtriton.runtime.fused.selection import Selection
from newtriton.runtime.fused.settings import Settings


@pytest.fixture(scope="module")
def programs():
    body = nt.Sequential(nt.Conv2d(4, 3, padding=1, bias=False), nt.BatchNorm2d(), nt.SiLU())
    net = nt.Sequential(
        nt.Conv2d(4, 3, stride=2), nt.Tanh(), nt.Residual(body), nt.AvgPool2d(2), nt.Flatten(),
        nt.Linear(3),
    )  # fmt: skip
    model = nt.compile(net, (2, 9, 9), nt.CrossEntropyLoss(), backend="aten", device="cpu")
    return model.programs[True]


@pytest.mark.parametrize("precision", ["ieee", "tf32", "bf16"])
def test_every_pass_leaves_a_valid_graph(programs, precision: str):
    selection, made = Selection(Settings(precision, "fused")), list[Node]()
    p = programs
    for program in (
        p.linearize, p.evaluate, p.hvp, p.ggnvp, p.quadratic(1), p.quadratic(2, "ggn"),
        *map(p.factors, p.kinds),
    ):  # fmt: skip
        seen: list[Graph] = []

        def check(graph: Graph, seen: list[Graph] = seen) -> Graph:
            seen.append(verify(graph))
            return graph

        keep = p.tape if program is p.linearize else ()
        lowered = pipeline.lower(program.graph, keep, precision, check)
        given = [lowered.became.get(n, n) for n in made]
        plan = pipeline.plan(lowered.graph, 4, selection, given, True, check)
        made += plan.made
        assert len(seen) == 4 and seen[-1] is plan.schedule.graph


def test_a_pass_that_breaks_a_graph_is_stopped(programs):
    def refuse(graph: Graph) -> Graph:
        raise nt.NewtritonError("no graph is valid")

    with pytest.raises(nt.NewtritonError, match="no graph is valid"):
        pipeline.lower(programs.hvp.graph, (), "ieee", refuse)
    with pytest.raises(nt.NewtritonError, match="no graph is valid"):
        pipeline.plan(programs.hvp.graph, 4, Selection(Settings()), check=refuse)


def test_what_is_kept_becomes_an_output_in_the_order_of_the_program():
    x = ops.input_("x", (N, 3))
    a = ops.map_(scalar.tanh(scalar.var(0)), x)
    b = ops.map_(scalar.exp(scalar.var(0)), a)
    program = Graph("both", {"b": b}, frozenset({x}))
    kept = pipeline.keep_values(program, [b, a, x])
    assert list(kept.outputs.items()) == [("b", b), ("tape:0", a), ("tape:1", b)]
    assert kept.given == {x}
    assert pipeline.give(program, [a]).computed() == [b]


def test_operands_are_rounded_and_nodes_are_followed():
    x, w = ops.input_("x", (N, 3)), ops.param("w", (2, 3))
    y = ops.matmul(x, w, tb=True)
    lowered = pipeline.lower(Graph("product", {"y": y}), (), "tf32")
    product = lowered.graph.outputs["y"]
    assert lowered.outputs == {"y": y} and lowered.became[y] is product
    assert all(map(is_rounded, product.inputs))


def test_contractions_have_tilings_and_all_kernels_tiles(programs):
    plans = {}
    for contractions in ("fused", "vendor"):
        selection = Selection(Settings("ieee", contractions))
        plan = pipeline.plan(programs.linearize.graph, 4, selection)
        tilings = pipeline.choose_tilings(plan.schedule, 4, selection)
        tiles = pipeline.choose_tiles(plan.schedule, 4, tilings, 1024)
        assert set(tiles) == set(plan.schedule.kernels)
        plans[contractions] = sum(bool(k.anchors) for k in plan.schedule.kernels), len(tilings)
    anchors, ours = plans["fused"]
    assert anchors == ours > 0 and plans["vendor"][1] == 0


# --- what kernels can count -----------------------------------------------------------------------

FUSED = Selection(Settings(contractions="fused"))
VENDOR = Selection(Settings())


def most(graph: Graph, batch: int, selection: Selection = FUSED) -> int:
    """The batch size that the error offers."""
    with pytest.raises(nt.NewtritonError, match="fused kernels count fewer than 2³¹") as error:
        FusedExecutor(graph, (), selection).plan(batch)
    assert f"{graph.name}: " in str(error.value) and f" {batch}, " in str(error.value)
    return int(
        re.findall(r"at most (\d+) samples|more than (\d+) elements", str(error.value))[0][0]
    )


@pytest.mark.parametrize("selection", [FUSED, VENDOR], ids=["fused", "vendor"])
def test_the_largest_batch_of_every_program_fits_and_the_next_does_not(programs, selection):
    p = programs
    for program in (
        p.linearize, p.evaluate, p.hvp, p.ggnvp, p.quadratic(1), *map(p.factors, p.kinds)
    ):  # fmt: skip
        fits = most(program.graph, 10**10, selection)
        FusedExecutor(program.graph, (), selection).plan(fits)
        assert most(program.graph, fits + 1, selection) == fits


def test_a_batch_is_as_large_as_the_largest_value_in_memory_allows():
    x, w = ops.input_("x", (N, 64)), ops.param("w", (128, 64))
    matmul = Graph("matmul", {"y": ops.matmul(x, w, tb=True)})
    for selection in (FUSED, VENDOR):
        assert most(matmul, 1 << 30, selection) == (1 << 31) // 128 - 1
    wide = ops.broadcast(ops.map_(scalar.tanh(scalar.var(0)), x), (4096, N, 64))
    total = Graph("sum", {"y": ops.reduce_sum(wide, (0,))})  # it is nowhere in memory
    assert most(total, 1 << 30) < (1 << 31) // 64


@pytest.mark.parametrize("name", ["map", "parts", "patches", "window"])
def test_what_is_counted_besides_memory_is_bounded_too(name: str):
    """Positions beyond the end of the last tile are masked by comparisons, which must hold."""
    image = ops.input_("image", (N, 4, 4, 1))
    window = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
    graph = {
        "map": ops.map_(scalar.tanh(scalar.var(0)), ops.input_("x", (N, 1))),
        "parts": ops.reduce_sum(ops.input_("x", (N, 1))),
        "patches": ops.make(
            Op.PATCH_GRAM, image, kernel=(3, 3), homogeneous=True, scale=scalar.ONE, **window
        ),
        "window": ops.make(
            Op.CONV_INPUT_GRAD, image, ops.param("w", (1, 3, 3, 1)), size=(4, 4), **window
        ),
    }[name]
    fits = most(Graph(name, {"y": graph}), 1 << 40)
    values = 1 << (27 if name in ("patches", "window") else 31)  # samples of 2³¹ elements
    assert 0.99 * values < fits < values - 1


def test_nothing_is_measured_for_a_batch_that_does_not_fit(programs):
    class Refusing:
        def prepare(self, nodes: Sequence[Node], batch: int) -> None:
            pytest.fail("memory would be taken")

        def fused_is_faster(self, node: Node, batch: int) -> bool:
            return True

    selection = Selection(Settings(contractions="measured"), Refusing())
    assert most(programs.linearize.graph, 10**9, selection) > 0


def test_vectors_that_are_too_long_are_said_to_be_vectors():
    for program in (inner_products(2), iteration(True, False)):
        with pytest.raises(nt.NewtritonError, match="length 3000000000") as error:
            FusedExecutor(program.graph, (), FUSED).plan(3 * 10**9)
        assert "batch" not in str(error.value)
        (fits,) = re.findall(r"vectors of more than (\d+) elements", str(error.value))
        FusedExecutor(program.graph, (), FUSED).plan(int(fits))


def test_where_no_sample_fits_there_is_another_way_out():
    x = ops.input_("x", (N, 1 << 16, 1 << 15))
    with pytest.raises(nt.NewtritonError, match="not even a single sample fits"):
        FusedExecutor(Graph("map", {"y": ops.scale(x, 2.0)}), (), FUSED).plan(1)


def test_explaining_a_batch_that_does_not_fit_is_the_same_error():
    model = nt.compile(
        nt.Linear(3), (5,), nt.CrossEntropyLoss(), backend="triton", device="cpu", seed=0
    )
    with pytest.raises(nt.NewtritonError, match=r"give at most \d+ samples at once"):
        model.explain(batch=10**9)
