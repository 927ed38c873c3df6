"""The passes from a program to launches: every graph between them is valid."""

import pytest

import newtriton as nt
from newtriton.compiler.graph import ops, scalar
from newtriton.compiler.graph.ir import Graph, N, Node
from newtriton.compiler.graph.verify import verify
from newtriton.compiler.lowering.precision import is_rounded
from newtriton.runtime.fused import pipeline
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
        assert len(seen) == 3 and seen[-1] is plan.schedule.graph


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
