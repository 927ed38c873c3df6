"""Sinks in passes: one if it holds them all, and no sink twice."""

from __future__ import annotations

import pytest

from newtriton.compiler.derivatives.transpose import vjp
from newtriton.compiler.functions.attention import attention
from newtriton.compiler.graph import ops
from newtriton.compiler.graph.ir import Graph, N
from newtriton.compiler.passes.sharing import Sharing
from newtriton.compiler.passes.sinks import sinks_of
from newtriton.compiler.passes.space import Side
from newtriton.compiler.streaming.streams import in_order
from newtriton.runtime.fused.chips import CHIPS


@pytest.mark.parametrize(("size", "passes"), [(16, 1), (128, 2)])
@pytest.mark.parametrize("side", Side)
def test_every_sink_is_in_one_pass(size: int, passes: int, side: Side) -> None:
    q, k, v = (ops.input_(name, (N, 2, 300, size)) for name in "qkv")
    o = attention(q, k, v)
    found = vjp({o: ops.input_("ct", o.shape)}, [q, k, v])
    graph = Graph("test", {str(i): found[x] for i, x in enumerate((q, k, v))} | {"o": o})
    _, streams = in_order(graph, graph.outputs.values())
    for stream in streams:
        sinks = [s for s in sinks_of(stream) if s.side is side]
        shared = Sharing(stream, side, "tf32", CHIPS["sm_90"]).shared(sinks) if sinks else []
        assert len(shared) <= passes
        assert sorted(map(id, sinks)) == sorted(id(s) for group in shared for s in group)
