"""Padding of axes: by a number, or by their own elements, reflected, repeated or in a circle."""

from __future__ import annotations

from collections.abc import Mapping

from ..graph import ops, scalar
from ..graph.errors import ShapeError
from ..graph.ir import Node, Op
from .shapes import cut, joined

MODES = ("zeros", "constant", "reflect", "replicate", "circular")

MOST_COPIES = 4096  # of an element, each of which is a part of its own


def pad(
    x: Node, widths: Mapping[int, tuple[int, int]], mode: str = "constant", value: float = 0.0
) -> Node:
    """Returns x with elements added before and after it along some axes.

    Args:
        x: any value.
        widths: by axis, how many elements are added before and after; less than 0 cuts off.
        mode: "constant" adds a number, "reflect" mirrors x at its first and last element,
            "replicate" repeats these, and "circular" goes on at the other end.
        value: the number of the mode "constant".

    Raises:
        ShapeError: an axis is too short for that.
    """
    for axis, (low, high) in widths.items():
        size = x.shape[axis]
        if size + min(low, 0) + min(high, 0) < 1:
            raise ShapeError(f"padding {(low, high)} leaves nothing of {size} elements")
        x = cut(x, axis, max(-low, 0), size - max(-high, 0))
        x = _padded(x, axis, max(low, 0), max(high, 0), mode, value)
    return x


def _padded(x: Node, axis: int, low: int, high: int, mode: str, value: float) -> Node:
    """Returns x with `low` elements before and `high` elements after it on an axis."""
    if low == high == 0:
        return x
    if mode in ("zeros", "constant"):
        if value == 0:
            return ops.make(Op.PAD, x, axis=axis, low=low, high=high)
        number = ops.const(scalar.const(value))
        sides = [_filled(number, x, axis, width) for width in (low, high)]
        return joined([*sides[0], x, *sides[1]], axis)
    size = x.shape[axis]
    most = {"reflect": size - 1, "circular": size, "replicate": MOST_COPIES}[mode]
    if max(low, high) > most:
        raise ShapeError(f"{mode} padding {(low, high)} is more than {most}, of {size} elements")
    if mode == "circular":
        before = [cut(x, axis, size - low, size)] if low else []
        after = [cut(x, axis, 0, high)] if high else []
        return joined([*before, x, *after], axis)
    step = 1 if mode == "reflect" else 0
    places = [
        *(i * step for i in range(low, 0, -1)),
        *(size - 1 - i * step for i in range(1, high + 1)),
    ]
    single = [cut(x, axis, i, i + 1) for i in places]
    return joined([*single[:low], x, *single[low:]], axis)


def _filled(number: Node, like: Node, axis: int, width: int) -> list[Node]:
    """Returns `width` copies of a number along an axis, as a list that is empty without any."""
    shape = (*like.shape[:axis], width, *like.shape[axis + 1 :])
    return [ops.broadcast(number, shape)] if width else []
