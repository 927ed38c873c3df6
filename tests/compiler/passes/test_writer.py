"""The text of passes: accumulators before their loop, and nothing that is written twice."""

from __future__ import annotations

import ast

import pytest

from newtriton.compiler.derivatives.transpose import vjp
from newtriton.compiler.functions.attention import attention
from newtriton.compiler.graph import ops
from newtriton.compiler.graph.ir import Graph, N
from newtriton.compiler.passes.passes import PassCode, Refusal, pass_codes
from newtriton.compiler.streaming.streams import in_order
from newtriton.runtime.fused.chips import CHIPS


def codes(precision: str, size: int = 16) -> list[PassCode]:
    q, k, v = (ops.input_(name, (N, 2, 150, size)) for name in "qkv")
    o = attention(q, k, v)
    found = vjp({o: ops.input_("ct", o.shape)}, [q, k, v])
    outputs = {"o": o, **{str(i): found[x] for i, x in enumerate((q, k, v))}}
    _, streams = in_order(Graph("test", outputs), outputs.values())
    chip = CHIPS["sm_90"]
    made = [pass_codes(s, 3, chip.product(precision), chip) for s in streams]
    assert not any(isinstance(found, Refusal) for found in made)
    return [code for found in made if not isinstance(found, Refusal) for code in found]


@pytest.mark.parametrize("precision", ["ieee", "tf32", "bf16"])
def test_passes_are_functions_without_branches_on_data(precision: str) -> None:
    for code in codes(precision):
        functions = [f for f in ast.parse(code.source).body if isinstance(f, ast.FunctionDef)]
        assert code.function in {f.name for f in functions}
        for function in functions:
            assert not any(isinstance(n, ast.While) for n in ast.walk(function))


def test_what_is_generated_does_not_change() -> None:
    assert [c.source for c in codes("tf32")] == [c.source for c in codes("tf32")]


def test_every_load_states_what_is_elsewhere() -> None:
    for code in codes("tf32"):
        loads = [
            n
            for n in ast.walk(ast.parse(code.source))
            if isinstance(n, ast.Call) and ast.unparse(n.func) == "tl.load"
        ]
        assert loads
        for load in loads:
            named = {k.arg for k in load.keywords}
            assert "mask" not in named or "other" in named
