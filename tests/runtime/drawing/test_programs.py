"""Which pictures are made."""

import pytest

import newtriton as nt
from newtriton.compiler.graph.ir import Graph
from newtriton.runtime.drawing import programs
from newtriton.runtime.drawing.gathering import label
from newtriton.runtime.drawing.picture import Kind, amount
from newtriton.runtime.drawing.programs import pictures

from .drawn import model, picture


def test_without_triton_operators_are_drawn_or_kernels_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(programs, "find_spec", lambda name: None)
    shown = [model("plain").programs[True].linearize]
    assert [p.how for p in pictures(model("plain"), shown, 3)] == ["PyTorch's operators"]
    with pytest.raises(nt.NewtritonError, match="pip install triton"):
        list(pictures(model("plain"), shown, 3, fused=True))


def test_kernels_are_those_of_a_gpu_whatever_runs_here() -> None:
    assert picture("plain", "hvp").how == "kernels for sm_90, ieee, contractions fused"


def test_nodes_have_the_numbers_of_the_printed_graph() -> None:
    graph: Graph = model("plain").programs[True].evaluate.graph
    lines = {line.strip() for line in str(graph).splitlines()}
    shown = picture("plain", "evaluate")
    drawn = {pill.line for kernel in shown.kernels for pill in kernel.pills if "%" in pill.line}
    assert {*drawn, *shown.outside.values()} >= lines - {
        line for line in lines if " = " in line or line.startswith("evaluate:")
    }


def test_maps_are_called_by_what_they_compute() -> None:
    from newtriton.compiler.graph import ops, scalar  # noqa: PLC0415 - for this test alone

    x = ops.input_("x", (3,))
    a = scalar.var(0)
    assert label(ops.map_(a * a, x)) == "x0*x0"
    assert label(ops.map_(a + 1.0, x)) == "x0 + 1"
    long = scalar.exp(a * a * a) * scalar.sigmoid(a + 1.0) * a
    assert label(ops.map_(long, x)) in ("map exp sigmoid", "map sigmoid exp")
    assert label(x) == "input"


def test_values_are_what_they_are_to_the_program() -> None:
    values = picture("plain", "linearize").values
    names = {kind: {v.label for v in values if v.kind is kind} for kind in Kind}
    assert {"x", "y"} <= names[Kind.INPUT]
    assert "0.weight" in names[Kind.PARAMETER]
    assert {"outputs", "losses", "gradient:0.weight"} <= names[Kind.RESULT]
    assert not names[Kind.TAPE]
    again = picture("plain", "hvp").values
    assert any(v.kind is Kind.TAPE for v in again)
    assert not any(v.kind is Kind.KEPT for v in again)
    kept = {v.name: v.size for v in values if v.kind is Kind.KEPT}
    assert sum(kept.values()) > 0
    assert amount(999.6, "B") == "1 kB"
