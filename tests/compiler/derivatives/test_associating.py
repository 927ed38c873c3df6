"""Sums of short rows for those of wide ones: where they are found, and that they are equal."""

from __future__ import annotations

import pytest
import torch

from newtriton.compiler.derivatives.associating import Products
from newtriton.compiler.derivatives.transpose import vjp
from newtriton.compiler.functions.attention import attention
from newtriton.compiler.graph import ops, scalar
from newtriton.compiler.graph.ir import Graph, N, Node, topological
from newtriton.compiler.graph.scalar import var
from newtriton.runtime.aten.executor import AtenExecutor
from newtriton.runtime.backend import Context

CPU = torch.device("cpu")
q, k, v, ct = (ops.input_(name, (N, 2, 7, 4)) for name in ("q", "k", "v", "ct"))
mask = ops.input_("mask", (7, 7))
p = ops.input_("p", (N, 2, 7, 7))
wide = ops.matmul(ct, v, tb=True)


def rows(x: Node) -> Node:
    return ops.reduce_sum(x, (ops.rank(x) - 1,))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_sum_of_a_known_product_is_short(sign: float):
    known = Products([ops.matmul(p, v)])
    total = rows(ops.map_(sign * var(0) * var(1), p, wide))
    short = known.associated(total)
    assert [n.shape for n in topological([short]) if n is not p][-2:] == [ct.shape, ct.shape[:-1]]
    feed = {n: torch.randn(3, *n.shape[1:], dtype=torch.float64) for n in (p, v, ct)}
    run = AtenExecutor(Graph("both", {"wide": total, "short": short}))
    found = run(Context(3, torch.float64, CPU), feed)
    torch.testing.assert_close(found[total], found[short])


@pytest.mark.parametrize(
    "total",
    [
        rows(ops.map_(scalar.exp(var(0)) * var(1), p, wide)),
        rows(ops.map_(var(0) + var(1), p, wide)),
        ops.reduce_sum(ops.multiply(p, wide), (2,)),
        rows(p),
    ],
)
def test_other_sums_stay(total: Node):
    assert Products([ops.matmul(p, v), ops.matmul(p, k)]).associated(total) is total


@pytest.mark.parametrize("masked", [False, True])
def test_a_softmax_has_one_wide_product_in_its_adjoint(masked: bool):
    o = attention(q, k, v, mask if masked else None)
    adjoints = vjp({o: ct}, [q, k, v])
    nodes = topological([adjoints[x] for x in (q, k, v)])
    sums = [n for n in nodes if n.op.value == "reduce_sum"]
    assert [n.inputs[0].shape for n in sums] == [ct.shape]  # ō·o, of short rows
