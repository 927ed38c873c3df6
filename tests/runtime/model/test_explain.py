"""The table of costs: a line for each program, with fused kernels where they are planned."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import newtriton as nt
from newtriton.compiler.graph.cost import flops, units
from newtriton.compiler.language.network import trace
from newtriton.compiler.programs import Programs
from newtriton.runtime.model.explain import explain


def programs() -> Programs:
    net = nt.Sequential(nt.Linear(4), nt.Tanh(), nt.Linear(3))
    return Programs(trace(net, (5,), nt.CrossEntropyLoss(), training=True))


def unplanned(program: object, made: object) -> None:
    return None


def test_a_line_counts_what_a_program_costs() -> None:
    p = programs()
    head, *lines, tape = explain(p, 1000, 4, unplanned).splitlines()
    assert head.split()[:3] == ["program", "ops", "units"] and head.endswith("(batch 1000)")
    assert "kernels" not in head
    shown = {line.split()[0]: line.split()[1:] for line in lines}
    assert {p.linearize.name, p.evaluate.name, p.hvp.name, p.ggnvp.name} < set(shown)
    graph = p.hvp.graph
    expected = [len(graph.computed()), units(graph), round(flops(graph, 1000) / 1e9, 3)]
    assert [float(cell) for cell in shown[p.hvp.name][:3]] == expected
    megabytes = 4 * sum(n.type.numel(1000) for n in p.tape) / 1e6
    assert tape == f"tape of a linearization: {len(p.tape)} values, {megabytes:.1f} MB"


def test_costs_grow_with_the_batch_and_the_size_of_a_number() -> None:
    p = programs()

    def moved(batch: int, itemsize: int) -> float:
        return float(explain(p, batch, itemsize, unplanned).splitlines()[1].split()[4])

    assert moved(100_000, 8) == 2 * moved(100_000, 4) > moved(10_000, 4)


def test_fused_kernels_are_shown_where_there_is_a_plan() -> None:
    seen: list[list[Any]] = []

    class Schedule:
        kernels, launches, streams = [1, 2, 3], [[1], [2]], 0

        def traffic(self, batch: int) -> int:
            return 7_000_000

        def __str__(self) -> str:
            return "the schedule"

    def plan(program: Any, made: Any) -> Any:
        seen.append([*made])
        return SimpleNamespace(
            schedule=Schedule(), source="the source", made=[program.name], scratch=2_000_000,
            refusals=["why not"],
        )  # fmt: skip

    text = explain(programs(), 8, 4, plan)
    head, line, *_ = text.splitlines()
    assert head.split()[-8:-2] == ["kernels", "launches", "MB", "fused", "MB", "arena"]
    assert line.split()[-4:] == ["3", "2", "7.0", "2.0"]
    assert seen[0] == [] and len(seen[2]) == 2  # what was made for programs before
    assert "the source" not in text and text.splitlines().count("why not") == 1
    assert "the schedule\n\nthe source" in explain(programs(), 8, 4, plan, kernels=True)


def test_what_is_computed_in_passing_is_said_for_both_backends() -> None:
    body = nt.Residual(nt.SelfAttention(1, causal=True)), nt.Flatten(), nt.Linear(3)
    for backend, hvp in (("aten", 2), ("triton", 2)):
        model = nt.compile(nt.Sequential(*body), (256, 8), nt.CrossEntropyLoss(), backend=backend)
        text = model.explain(2)
        assert f"\nstreams: linearize 2, evaluate 1, hvp {hvp}, " in text
        assert "\n0.body (SelfAttention): N×1×256×256 in passing\n" in text
