"""Where the samples of a batch lie in a dimension that holds positions as well."""

from __future__ import annotations

import math

from ..graph.ir import Node, Op, batch_axis, topological
from ..language.network import Traced


def outer_positions(traced: Traced) -> dict[Node, int]:
    """Returns by node how many positions stand in front of the batch in one dimension with it.

    N×T×D reshaped to N·T×D has its samples in front, and none of the T positions; T×N×D reshaped
    so has all of them. A reshape keeps the order of elements, every other op that of a dimension.
    """
    found: dict[Node, int] = {}
    for node in topological([traced.loss]):
        axis = batch_axis(node.shape)
        if axis is None:
            continue
        known = [(x, found[x]) for x in node.inputs if x in found]
        if node.shape[axis].times == 1:
            found[node] = 1
        elif node.op is Op.RESHAPE:
            ((x, outer),) = known
            before = outer * math.prod(x.shape[: batch_axis(x.shape)])
            found[node] = before // math.prod(node.shape[:axis])
        else:
            alike = [outer for x, outer in known if node.shape[axis] in x.shape]
            found[node] = alike[0] if alike else 1
    return found
