"""Pictures of programs on PyTorch's operators."""

import pytest

from newtriton.compiler.graph.ir import VIEWS
from newtriton.runtime.aten.executor import AtenExecutor
from newtriton.runtime.drawing.picture import GIVEN, Kind

from .drawn import CASES, PROGRAMS, model, nodes, picture


@pytest.mark.parametrize(("net", "program"), CASES)
def test_every_call_and_every_node_is_drawn_once(net: str, program: str) -> None:
    shown = picture(net, program, fused=False)
    executor = AtenExecutor(PROGRAMS[program](model(net)).graph)
    drawn = nodes(shown.kernels)
    assert len(drawn) == len(set(drawn))
    assert {*drawn, *(int(line[1:].split()[0]) for line in shown.outside.values())} == set(
        range(int(dict(shown.facts)["nodes"]))
    )
    if program != "linearize":  # it keeps its tape as well
        calls = [s for s in executor.steps if not VIEWS.issuperset(n.op for n in s.writes)]
        assert len(shown.kernels) == len(calls) == len(shown.launches)


@pytest.mark.parametrize(("net", "program"), CASES)
def test_what_is_read_was_written_before_or_comes_from_outside(net: str, program: str) -> None:
    shown, written = picture(net, program, fused=False), set[int]()
    for kernel in shown.kernels:
        assert all(shown.values[v].kind in GIVEN or v in written for v in kernel.reads)
        written.update(kernel.writes)


@pytest.mark.parametrize(("net", "program"), CASES)
def test_values_that_are_alive_never_overlap(net: str, program: str) -> None:
    for band in picture(net, program, fused=False).bands:
        for i, one in enumerate(band.rooms):
            assert one.offset + one.size <= band.size
            for other in band.rooms[:i]:
                apart = one.stop <= other.start or other.stop <= one.start
                below = one.offset + one.size <= other.offset
                assert apart or below or other.offset + other.size <= one.offset


def test_what_operators_have_in_common_is_told() -> None:
    kinds = {k.kind for net, _ in CASES for k in picture(net, "linearize", False).kernels}
    assert kinds == {"operator", "pattern", "maps", "blocks"}
    tape = [v for v in picture("plain", "hvp", False).values if v.kind is Kind.TAPE]
    assert tape
