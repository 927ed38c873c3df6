"""Cholesky factors of many matrices: equal shapes in one call, failures in one transfer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..reading import read

LARGE = 1024  # rows from which on a call is long beside its launch, and stacks cost memory


class System(NamedTuple):
    """A symmetric matrix with a damping on its diagonal.

    Attributes:
        matrix: the matrix, or one per group on a leading axis.
        damping: one number per group; where it is NaN, there is no factor.
    """

    matrix: Tensor
    damping: Tensor


def cholesky(systems: Sequence[System]) -> list[Tensor | None]:
    """Returns the lower factor of each matrix + damping·I; None where a group has none.

    Examples:
        >>> import torch
        >>> from newtriton.runtime.parts.cholesky import System, cholesky
        >>> eye, zero = torch.eye(1), torch.zeros(())
        >>> cholesky([System(4 * eye, zero), System(-eye, zero)])
        [tensor([[2.]]), None]
    """
    if not systems:
        return []
    alike: dict[tuple[object, ...], list[int]] = {}
    for i, (matrix, _) in enumerate(systems):
        alone = i if matrix.shape[-1] > LARGE else None
        alike.setdefault((matrix.shape, matrix.dtype, alone), []).append(i)
    factors = [_factors([systems[i] for i in places]) for places in alike.values()]
    extents = read(*(extent for _, extent in factors))
    result: list[Tensor | None] = [None] * len(systems)
    for places, (lowers, _), found in zip(alike.values(), factors, extents, strict=True):
        for i, lower, extent in zip(places, lowers, found, strict=True):
            result[i] = lower if math.isfinite(extent) else None
    return result


def _factors(systems: Sequence[System]) -> tuple[Tensor, Tensor]:
    """Returns factors of matrices of one shape, and for each a number, finite where it has one."""
    damped = torch.stack([system.matrix for system in systems])
    dampings = torch.stack([system.damping for system in systems]).to(damped.dtype)
    damped.diagonal(dim1=-2, dim2=-1).add_(dampings.unsqueeze(-1))
    lowers, info = torch.linalg.cholesky_ex(damped)
    # What is not finite in a row makes its diagonal element NaN: √(aᵢᵢ − Σⱼ Lᵢⱼ²).
    extents = lowers.diagonal(dim1=-2, dim2=-1).amax(-1)
    failed = (info != 0) | dampings.isnan()
    return lowers, extents.masked_fill(failed, math.nan).reshape(len(systems), -1).amax(1)
