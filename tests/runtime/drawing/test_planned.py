"""Pictures of fused kernels: every kernel and node once, and the numbers of `explain()`."""

import re
from functools import cache

import pytest

import newtriton as nt
from newtriton.compiler.graph.cost import flops
from newtriton.runtime.drawing import planned
from newtriton.runtime.drawing.picture import GIVEN, Kind, Picture, amount
from newtriton.runtime.drawing.programs import pictures
from newtriton.runtime.fused.executor import FusedExecutor
from newtriton.runtime.fused.plan import Plan
from newtriton.runtime.fused.selection import Selection
from newtriton.runtime.fused.settings import Settings

from .drawn import BATCH, CASES, PROGRAMS, model, nodes, picture


@cache
def plan_of(net: str, program: str, contractions: str = "fused") -> Plan:
    """The program as fused kernels, as its picture is made of."""
    known, shown = model(net).programs[True], PROGRAMS[program](model(net))
    selection, made = Selection(Settings(contractions=contractions)), []
    if shown.graph.given:
        made = FusedExecutor(known.linearize.graph, known.tape, selection).plan(BATCH).made
    kept = known.tape if shown is known.linearize else ()
    return FusedExecutor(shown.graph, kept, selection).plan(BATCH, made)


def edges_of(shown: Picture) -> list[tuple[int, int, int]]:
    return [(k, *edge) for k, kernel in enumerate(shown.kernels) for edge in kernel.edges]


@pytest.mark.parametrize(("net", "program"), CASES)
def test_every_kernel_and_every_node_is_drawn_once(net: str, program: str) -> None:
    shown, plan = picture(net, program), plan_of(net, program)
    graph = plan.schedule.graph
    scheduled = [k for launch in plan.schedule.launches for k in launch]
    assert [k.space for k in shown.kernels] == [str(k.space) for k in scheduled]
    assert set(scheduled) == set(plan.schedule.kernels)
    drawn = nodes(shown.kernels)
    outside = {int(line[1:].split()[0]) for line in shown.outside.values()}
    assert len(drawn) == len(set(drawn))
    assert outside.isdisjoint(drawn)
    assert {*drawn, *outside} >= set(range(len(graph.nodes())))
    assert len(shown.launches) == len(plan.launches)


@pytest.mark.parametrize(("net", "program"), CASES)
def test_all_that_is_read_goes_somewhere_and_all_that_is_written_comes_from_somewhere(
    net: str, program: str
) -> None:
    shown = picture(net, program)
    for kernel in shown.kernels:
        last = len(kernel.reads) + len(kernel.pills)
        assert {a for a, _ in kernel.edges} >= set(range(len(kernel.reads)))
        made = {b for _, b in kernel.edges if b >= last}
        written = [shown.values[v] for v in kernel.writes]
        inside = {i + last for i, v in enumerate(written) if v.name.startswith("indices for")}
        assert made | inside == set(range(last, last + len(kernel.writes)))


@pytest.mark.parametrize(("net", "program"), CASES)
def test_what_is_read_was_written_before_or_comes_from_outside(net: str, program: str) -> None:
    shown = picture(net, program)
    written: dict[int, int] = {}
    for kernel in shown.kernels:
        for v in kernel.reads:
            assert shown.values[v].kind in GIVEN or written[v] < kernel.launch
        for v in kernel.writes:
            assert v not in written
            written[v] = kernel.launch


@pytest.mark.parametrize(("net", "program"), CASES)
def test_costs_add_up_to_those_of_the_program(net: str, program: str) -> None:
    shown, plan = picture(net, program), plan_of(net, program)
    assert sum(k.flops for k in shown.kernels) == flops(plan.schedule.graph, BATCH)
    assert sum(k.traffic for k in shown.kernels) == plan.schedule.traffic(BATCH)


@pytest.mark.parametrize(("net", "program"), CASES)
def test_values_that_are_alive_never_overlap(net: str, program: str) -> None:
    for band in picture(net, program).bands:
        for i, one in enumerate(band.rooms):
            assert one.offset >= 0
            assert one.offset + one.size <= band.size
            assert 0 <= one.start < one.stop <= len(picture(net, program).launches)
            for other in band.rooms[:i]:
                apart = one.stop <= other.start or other.stop <= one.start
                below = one.offset + one.size <= other.offset
                above = other.offset + other.size <= one.offset
                assert apart or below or above


@pytest.mark.parametrize(("net", "program"), CASES)
def test_the_arena_is_as_large_as_the_plans(net: str, program: str) -> None:
    arena = picture(net, program).bands[0]
    assert arena.name == "arena"
    assert arena.size == plan_of(net, program).scratch
    assert ("arena", amount(arena.size, "B")) in picture(net, program).facts


def test_numbers_are_those_of_explain() -> None:
    net = nt.Sequential(nt.Conv2d(4, 3), nt.SiLU(), nt.MaxPool2d(2), nt.Flatten(), nt.Linear(3))
    made = nt.compile(net, (2, 8, 8), nt.CrossEntropyLoss(), backend="triton", device="cpu")
    known, table = made.programs[True], made.explain(BATCH)
    for shown in pictures(made, [known.linearize, known.hvp, known.factors("kfac")], BATCH):
        (row,) = (line for line in table.splitlines() if line.startswith(f"{shown.name}  "))
        numbers = re.sub(re.escape(shown.name), "", row).split()[-4:]
        facts = dict(shown.facts)
        moved, arena = sum(k.traffic for k in shown.kernels), shown.bands[0].size
        assert numbers == [
            facts["kernels"], facts["launches"], f"{moved / 1e6:.1f}", f"{arena / 1e6:.1f}",
        ]  # fmt: skip


def test_kinds_of_launches_are_told_apart() -> None:
    kinds = {k.kind for net, program in CASES for k in picture(net, program).kernels}
    expected = {"contraction", "outer", "Gram", "patch Gram", "rows", "pointwise", "passes"}
    assert kinds == expected
    plan = plan_of("plain", "hvp", "vendor")
    assert {k.kind for k in planned.picture(plan, "").kernels} == {"pointwise", "vendor"}


def test_where_a_library_puts_its_results_is_no_part_of_the_arena() -> None:
    shown = planned.picture(plan_of("plain", "hvp", "vendor"), "")
    apart = {v for v, value in enumerate(shown.values) if value.kind is Kind.LIBRARY}
    assert apart
    assert apart.isdisjoint(room.value for band in shown.bands for room in band.rooms)


def test_a_launch_has_its_source_its_tiles_and_its_skeleton() -> None:
    shown = picture("plain", "linearize")
    for kernel in shown.kernels:
        launch = shown.launches[kernel.launch]
        assert launch.settings
        if kernel.kind in ("contraction", "outer"):
            assert launch.skeletons == [kernel.kind]
            assert "BM=" in launch.settings[0][1]
            assert f"def {kernel.kind}(" in shown.skeletons[kernel.kind]
        if kernel.kind == "pointwise":
            assert "@triton.jit" in launch.source
            assert kernel.space in launch.source
