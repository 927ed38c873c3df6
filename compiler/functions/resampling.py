"""Matrices along axes: interpolation, and means over windows that no pool has.

Each element that comes out of an axis is a fixed combination of those that go in, so the axis is
multiplied by a small constant matrix. PyTorch's own functions of one axis say which: the matrix is
what they make of the unit vectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ..graph import ops
from ..graph.errors import ShapeError
from ..graph.ir import Node

Constant = Callable[[Tensor], Node]  # makes a leaf that holds a tensor

LARGEST = (1 << 31) - 1  # elements of an axis
MODES = ("nearest", "nearest-exact", "linear", "bilinear", "bicubic", "area")


def matrix_of(function: Callable[[Tensor], Tensor], size: int) -> Tensor:
    """Returns the out×size matrix of a linear function of an axis of `size` elements.

    Args:
        function: takes (1, channels, size) to (1, channels, out).
        size: how many elements go in.
    """
    return function(torch.eye(size, dtype=torch.float64)[None])[0].T.contiguous()


def along(x: Node, axis: int, matrix: Node) -> Node:
    """Returns Σ_j matrix_ij x_j, where i and j count along `axis`."""
    lead, rest = x.shape[:axis], x.shape[axis + 1 :]
    columns = ops.reshape(x, (*lead, x.shape[axis], math.prod(rest)))
    return ops.reshape(ops.matmul(matrix, columns), (*lead, matrix.shape[0], *rest))


def combine(x: Node, matrices: Sequence[Tensor], constant: Constant) -> Node:
    """Returns x with each spatial axis multiplied by its matrix, unless that is the identity."""
    first = ops.rank(x) - 1 - len(matrices)
    for axis, matrix in enumerate(matrices, first):
        if not torch.equal(matrix, torch.eye(len(matrix), dtype=matrix.dtype)):
            x = along(x, axis, constant(matrix))
    return x


def interpolate(
    x: Node,
    constant: Constant,
    *,
    sizes: Sequence[int] | None = None,
    scales: Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool = False,
) -> Node:
    """Returns the spatial axes of x in other sizes, as `torch.nn.functional.interpolate`.

    Args:
        x: the value, (*lead, *spatial, C).
        constant: makes the leaf of a matrix.
        sizes: the sizes of the spatial axes, or
        scales: the factors by which they grow.
        mode: one of `MODES`; "linear", "bilinear" and "bicubic" go along each axis.
        align_corners: whether the first and last elements stay where they are, for these three.

    Raises:
        ShapeError: nothing is left of an axis.
    """
    by_size = sizes is not None
    wanted = list(sizes if sizes is not None else scales or ())
    first = ops.rank(x) - 1 - len(wanted)
    for axis, number in enumerate(wanted, first):
        factor = number / x.shape[axis] if by_size else number
        if x.shape[axis] * factor < 1:
            raise ShapeError(f"{number} times {x.shape[axis]} elements leave none: take more")
        if x.shape[axis] * factor > LARGEST:
            raise ShapeError(f"{number} times {x.shape[axis]} elements are over 2³¹: take fewer")
        if mode == "nearest" and factor == int(factor):
            x = repeated(x, axis, int(factor))
        else:
            stretched = _stretched(
                "size" if by_size else "scale_factor", number, mode, align_corners
            )
            x = along(x, axis, constant(matrix_of(stretched, x.shape[axis])))
    return x


def repeated(x: Node, axis: int, times: int) -> Node:
    """Returns x with each element of an axis `times` times, one copy after the other."""
    if times == 1:
        return x
    lead, size, rest = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
    copies = ops.broadcast(x, (*lead, size, times, *rest), (axis + 1,))
    return ops.reshape(copies, (*lead, size * times, *rest))


def _stretched(
    what: str, number: float, mode: str, align_corners: bool
) -> Callable[[Tensor], Tensor]:
    """Returns PyTorch's interpolation of one axis to a size or by a factor."""
    if mode == "bicubic":
        across = (number, 1)

        def cubic(units: Tensor) -> Tensor:
            options = {what: across, "align_corners": align_corners}
            return functional.interpolate(units[..., None], mode="bicubic", **options)[..., 0]

        return cubic
    linear = mode in ("linear", "bilinear")
    options = {"mode": "linear" if linear else mode, what: number}
    options |= {"align_corners": align_corners} if linear else {}
    return lambda units: functional.interpolate(units, **options)
