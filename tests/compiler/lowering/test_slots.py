"""Slots: what is written for a kernel, which memory it takes and how that is accessed."""

from __future__ import annotations

import ast

from newtriton.compiler.graph import ops, scalar
from newtriton.compiler.graph.ir import Graph, N, Node, Op
from newtriton.compiler.graph.scalar import var
from newtriton.compiler.lowering.code import Code, Functions, Part, Tile
from newtriton.compiler.lowering.codegen import generate
from newtriton.compiler.lowering.schedule import schedule

x, y = (ops.input_(name, (N, 6)) for name in "xy")
z = ops.input_("z", (N, 2, 3))
turned = ops.transpose(ops.map_(var(0) * 1.5, z), (0, 2, 1))


def lowered(**outputs: Node) -> tuple[str, list[Code]]:
    """The generated module of a graph, and the code of its kernels."""
    scheduled = schedule(Graph("slots", outputs))
    launches = generate(scheduled, {k: Tile(16, 8, 1) for k in scheduled.kernels})
    source = "\n".join(launch.source for launch in launches)
    ast.parse(source)
    return source, [code for launch in launches for code in launch.codes]


def test_a_map_is_loads_a_value_and_a_store():
    source, (code,) = lowered(out=ops.map_(scalar.tanh(var(0)) * var(1), x, y))
    start = source.index("def slot_0")
    assert [line.strip() for line in source[start : source.index("\n\n", start)].splitlines()] == [
        "def slot_0(acc, i, j, k, m, n, mr, mc, p, batch):",
        "# N×6                map",
        "r = m[:, None]",
        "c = n[None, :]",
        "e = r * 6 + c",
        "v0 = tl.load(p[0] + e, mask=mr & mc, other=0)",
        "v1 = tl.load(p[1] + e, mask=mr & mc, other=0)",
        "v2 = tanh(v0)",
        "v3 = v2 * v1",
        "tl.store(p[2] + e, v3, mask=mr & mc)",
    ]
    assert code.in_order and [a.stored for a in code.accesses] == [False, False, True]


def test_coordinates_are_defined_where_they_are_used():
    source, (code,) = lowered(out=ops.map_(var(0) + 1.0, turned))
    assert "    a0 = r // 3\n    a1 = r % 3\n    a2 = c\n" in source
    assert "tl.load(p[0] + (a0 * 6 + a2 * 3 + a1), mask=mr & mc, other=0)" in source
    assert not code.in_order
    source, _ = lowered(out=ops.map_(var(0) + 1.0, x))
    assert "a0 = " not in source


def test_parts_of_a_sum_go_through_memory():
    total = ops.reduce_sum(ops.map_(var(0) * var(1), x, y))
    source, codes = lowered(out=total)
    parts, added = codes
    assert Part(total) in parts.pointers and Part(total) in added.pointers
    assert "add_all(p[0], (batch + 15) // 16)" in source
    source, _ = lowered(out=ops.reduce_sum(x, (0,)))
    assert "axis=0, keep_dims=True)" in source and "add_rows(p[0], (batch + 15) // 16, 6" in source


def test_a_place_outside_is_not_read():
    padded = ops.make(Op.PAD, x, axis=1, low=1, high=1)
    source, _ = lowered(out=ops.map_(var(0) * 2.0, padded))
    inside = "(a1 >= 1) & (a1 < 7)"
    assert f"tl.load(p[0] + (a0 * 6 + (a1 - 1)), mask=mr & mc & ({inside}), other=0)" in source


def test_a_value_may_be_written_over_one_that_is_read_before():
    out = ops.map_(scalar.tanh(var(0)), x)
    _, (code,) = lowered(out=out)
    assert code.overwriting.allows(x, out)
    out = ops.map_(scalar.tanh(var(0)), turned)
    _, (code,) = lowered(out=out)
    assert not code.overwriting.allows(z, out)


def test_functions_of_one_body_are_one():
    functions = Functions()
    first = functions.add("slot", "p", ["return p"])
    assert functions.add("slot", "p", ["return p"]) == first
    assert functions.add("ratio", "p", ["return p"]) != first
    assert functions.source.count("def ") == 2
