"""Whether what a kernel has written is right: errors relative to the scale of each element.

The scale of an element is its error bound by the unit of the arithmetic, so an error is right up
to the unit, and the largest of all elements counts: one wrong element of a million is found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ...compiler.graph.ir import Node, Op
from ..rounding.bounded import Bounded
from ..rounding.bounds import Arithmetic, classes, least_maximum, taps

SMALLEST = 1e-35  # GPUs take smaller numbers for zero
Found = Mapping[Node, Bounded]


def largest_error(node: Node, written: Tensor, found: Found, arithmetic: Arithmetic) -> float:
    """Returns the largest error of an element of a value, relative to its scale.

    It is infinite where a number is NaN that should not be, and where an index is none of the best.

    Args:
        node: the value.
        written: what has been written, flat.
        found: the values with their bounds, of this node and its operands.
        arithmetic: the arithmetic of the bounds.
    """
    expected = found[node]
    written = written.reshape(expected.value.shape)
    if node.type.kind == "int":
        right = _INDICES.get(node.op, _equal)(node, written.long(), found, arithmetic)
        return 0.0 if bool(right.all()) else math.inf
    errors = _errors(written.double(), expected, arithmetic.unit)
    return float(errors.max()) if errors.numel() else 0.0


def _errors(written: Tensor, expected: Bounded, unit: float) -> Tensor:
    """Returns the error of each element."""
    scale = (expected.spread / unit).clamp(min=SMALLEST).nan_to_num(nan=math.inf, posinf=math.inf)
    errors = (written - expected.value).abs() / scale
    same = written == expected.value.float().double()  # infinite ones too
    same |= written.isnan() & expected.value.isnan()
    same |= scale.isinf() & ~written.isnan()
    return errors.masked_fill(same, 0.0).nan_to_num(nan=math.inf, posinf=math.inf)


def _equal(node: Node, written: Tensor, found: Found, arithmetic: Arithmetic) -> Tensor:
    """Returns where an index is the expected one, or another could be as good."""
    value, error = found[node]
    return (written == value) | (torch.as_tensor(error, device=value.device) > 0)


def _place_of_maximum(node: Node, written: Tensor, found: Found, arithmetic: Arithmetic) -> Tensor:
    """Returns where an index is the expected one, or that of a value as large up to rounding."""
    x, expected = found[node.inputs[0]], found[node]
    right = written == expected.value
    if x.exact:
        return right
    least = least_maximum(x, expected.value)
    for place, best in taps(node, x.value + x.error):
        right |= (written == place) & (best >= least)
    return right


def _drawn_class(node: Node, written: Tensor, found: Found, arithmetic: Arithmetic) -> Tensor:
    """Returns where a class is drawn by a number within rounding of the given one."""
    first, last = classes(arithmetic, *(found[x] for x in node.inputs))
    return (first <= written) & (written <= last)


_INDICES: dict[Op, Callable[[Node, Tensor, Found, Arithmetic], Tensor]] = {
    Op.ARGMAX_POOL: _place_of_maximum,
    Op.SAMPLE: _drawn_class,
}
