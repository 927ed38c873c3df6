"""Inverses of many matrices by Cholesky factors: equal shapes in one call, one transfer for all.

With S = L Lᵀ and W = L⁻¹, S⁻¹ is WᵀW. On a CPU LAPACK makes it of L, in a third of the operations.
On a GPU large matrices are cut in halves, so that almost all of the work is matrix products:

    S = [S₁ ·; B·  S₂],  W = [W₁ 0; −W₂ C W₁  W₂],  C = B W₁ᵀ,  W₂ that of S₂ − C Cᵀ.

The error of a solution is a small multiple of that of forward and back substitution (Higham,
Accuracy and Stability of Numerical Algorithms, section 14.3): both grow with the condition number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...kernels.products import times_transposed
from ..reading import read

LinAlgError = torch.linalg.LinAlgError  # type: ignore[attr-defined]
LIBRARIES = ("cusolver", "magma")  # as their errors name them
LARGE = 1024  # rows from which on a call is long beside its launch, and stacks cost memory
HALVED = 512  # rows above which a matrix is cut in halves


def is_failure(error: RuntimeError) -> bool:
    """Whether an error says that a library could not factorise a matrix.

    cuSOLVER's are plain errors, of which no memory and a broken device are other kinds.
    """
    if isinstance(error, torch.OutOfMemoryError):
        return False
    return isinstance(error, LinAlgError) or any(n in str(error).lower() for n in LIBRARIES)


class System(NamedTuple):
    """A symmetric matrix with a damping on its diagonal.

    Attributes:
        matrix: the matrix, or one per group on a leading axis.
        damping: one number per group; where it is NaN, there is no inverse.
    """

    matrix: Tensor
    damping: Tensor


def inverses(systems: Sequence[System]) -> list[Tensor | None]:
    """Returns (matrix + damping·I)⁻¹ of each; None where a group is not positive definite.

    Examples:
        >>> import torch
        >>> from newtriton.runtime.parts.cholesky import System, inverses
        >>> eye, zero = torch.eye(1), torch.zeros(())
        >>> inverses([System(4 * eye, zero), System(-eye, zero)])
        [tensor([[0.2500]]), None]
    """
    if not systems:
        return []
    alike: dict[tuple[object, ...], list[int]] = {}
    for i, (matrix, _) in enumerate(systems):
        alone = i if matrix.shape[-1] > LARGE else None
        alike.setdefault((matrix.shape, matrix.dtype, alone), []).append(i)
    inverted = [_inverted([systems[i] for i in places]) for places in alike.values()]
    extents = read(*(extent for _, extent in inverted))
    result: list[Tensor | None] = [None] * len(systems)
    for places, (stack, _), found in zip(alike.values(), inverted, extents, strict=True):
        for i, inverse, extent in zip(places, stack, found, strict=True):
            if math.isfinite(extent):  # copies: products round as addresses are aligned
                result[i] = inverse.clone() if len(stack) > 1 else inverse
    return result


def _inverted(systems: Sequence[System]) -> tuple[Tensor, Tensor]:
    """Returns inverses of matrices of one shape, and for each a number, finite where it has one."""
    damped = torch.stack([system.matrix for system in systems])
    dampings = torch.stack([system.damping for system in systems]).to(damped.dtype)
    damped.diagonal(dim1=-2, dim2=-1).add_(dampings.unsqueeze(-1))
    alone = len(damped) == 1  # products of matrices without leading axes are faster
    result = _inverse(damped[0] if alone else damped).view_as(damped)
    # What is not finite in L or L⁻¹ makes a diagonal element so; 1/∞ is 0.
    both = torch.stack([x.diagonal(dim1=-2, dim2=-1).flatten(1) for x in (damped, result)])
    return result, both.amax((0, 2))


def _inverse(s: Tensor) -> Tensor:
    """Returns S⁻¹; NaN where S has no Cholesky factor."""
    if by_lapack(s):
        return torch.cholesky_inverse(_factor(s)).mT  # by rows, as the others lie
    return _gram(_inverse_factor(s))


def by_lapack(s: Tensor) -> bool:
    """Whether LAPACK inverts a matrix, or products do."""
    return s.device.type == "cpu"


def _factor(s: Tensor) -> Tensor:
    """Returns L of S = L Lᵀ; NaN where there is none."""
    lower, info = torch.linalg.cholesky_ex(s)
    return lower.masked_fill_((info != 0)[..., None, None], math.nan)


def _half(matrix: Tensor) -> int:
    """Returns where a matrix is cut, at a multiple of 64."""
    return -(-matrix.shape[-1] // 128) * 64


def _inverse_factor(s: Tensor) -> Tensor:
    """Returns W = L⁻¹, lower triangular, of S = L Lᵀ; NaN where there is no L."""
    if s.shape[-1] <= HALVED:
        try:
            lower = _factor(s)
            eye = torch.eye(s.shape[-1], dtype=s.dtype, device=s.device)
            return torch.linalg.solve_triangular(lower, eye, upper=False)
        except RuntimeError as error:
            if not is_failure(error):
                raise
            return torch.full_like(s, math.nan)
    half, w = _half(s), torch.zeros_like(s)
    w1 = _inverse_factor(s[..., :half, :half])
    c = times_transposed(s[..., half:, :half], w1)
    w2 = _inverse_factor(s[..., half:, half:] - times_transposed(c, c))
    w[..., :half, :half], w[..., half:, half:] = w1, w2
    w[..., half:, :half] = times_transposed(w2, times_transposed(w1.mT, c)).neg_()
    return w


def _gram(w: Tensor) -> Tensor:
    """Returns WᵀW of a lower triangular W."""
    if w.shape[-1] <= HALVED:
        return w.mT @ w
    half, result = _half(w), torch.empty_like(w)
    below, w2 = w[..., half:, :half].mT, w[..., half:, half:]
    result[..., :half, :half] = _gram(w[..., :half, :half]).add_(times_transposed(below, below))
    result[..., half:, half:] = _gram(w2)
    product = times_transposed(w2.mT, below)
    result[..., half:, :half], result[..., :half, half:] = product, product.mT
    return result
