"""Where samples lie in a dimension that holds positions as well."""

from __future__ import annotations

import newtriton as nt
from newtriton.compiler.curvature.layouts import outer_positions
from newtriton.compiler.graph import ops, scalar
from newtriton.compiler.graph.ir import N, Node, Op
from newtriton.compiler.language.network import Scope, trace

from .written import Written


def test_positions_stand_in_front_of_the_batch_where_they_were_turned_there() -> None:
    def net(x: Node, scope: Scope) -> Node:
        w = scope.parameter("w", (2, 2), "default", (2, 2))
        split = ops.reshape(x, (N, 4, 3, 2))
        behind = ops.matmul(ops.reshape(split, (N * 12, 2)), w, tb=True)
        turned = ops.transpose(split, (1, 0, 2, 3))
        between = ops.matmul(ops.reshape(turned, (N * 12, 2)), w, tb=True)
        bent = ops.map_(scalar.tanh(scalar.var(0)), between)
        apart = ops.matmul(ops.reshape(bent, (4, N * 3, 2)), w, tb=True)
        return ops.reshape(ops.total([behind, ops.reshape(apart, (N * 12, 2))]), (N, 24))

    found = outer_positions(trace(Written(net), (24,), nt.MSELoss()))
    products = {n.shape: outer for n, outer in found.items() if n.op is Op.MATMUL}
    assert sorted(outer for n, outer in found.items() if n.op is Op.MATMUL) == [1, 1, 4]
    assert products[4, N * 3, 2] == 1  # the axis in front of them is one of its own
